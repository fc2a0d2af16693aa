"""Train a GPT-2 of `transformers`, block by block and without a download: `python examples/gpt2.py`.

The model is built from its configuration, with new weights. Each of its blocks learns to predict the next character
from its own output; what is trained is transformers' own model, which generates and saves as ever.
"""

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

import localearn


class Embedding(nn.Module):
    """Token ids, (N, T), to h_0, (N, T, D): what GPT2Model does before its first block."""

    def __init__(self, gpt2):
        super().__init__()
        self.wte, self.wpe, self.drop = gpt2.wte, gpt2.wpe, gpt2.drop

    def forward(self, ids):
        return self.drop(self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device)))


torch.manual_seed(0)
data = localearn.data.text(window=64, stride=600, val_fraction=0.02, test_fraction=0.02)
size = {"vocab_size": data.vocabulary, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4}
# The blocks' local losses are apart from each other, and so are the embedding's and the head's weights.
config = GPT2Config(**size, tie_word_embeddings=False, bos_token_id=None, eos_token_id=None)
model = GPT2LMHeadModel(config)
*blocks, last = model.transformer.h
net = localearn.Net.from_blocks(
    Embedding(model.transformer),
    [*blocks, nn.Sequential(last, model.transformer.ln_f)],
    model.lm_head,
    takes=data.takes,
    view=localearn.PerPosition(),
    module=model,
)
ids = next(data.batches("val", 4)).x
assert torch.allclose(net.eval()(ids), model.eval()(ids).logits, atol=1e-5), "the net is the model"

record = localearn.MonoForward(net).fit(data, epochs=3)
print(record)
prompt = torch.from_numpy(data.codec.encode("The "))[None]
written = model.eval().generate(prompt, max_new_tokens=50, do_sample=True, temperature=0.7, pad_token_id=0)
print(repr(data.codec.decode(written[0].tolist())))
