"""Text generation by a language model, one token after another."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from localearn.data.tokens import Codec
from localearn.errors import UserError


def generate(
    net: Any,
    prompt: str = "\n",
    *,
    length: int = 300,
    temperature: float = 0.8,
    seed: int = 0,
    codec: Codec | None = None,
) -> str:
    """Generate the text with which a trained language model continues a prompt.

    Args:
        net: a net that was trained on text, as `fit` leaves it or `localearn.load_net` reads it.
        prompt: the beginning of the text, one token at least; the net sees as many of its last tokens as it takes.
        length: the number of tokens to generate.
        temperature: the logits are divided by it before a token is drawn; 0 takes the likeliest one.
        seed: of the draws.
        codec: the vocabulary; by default the one stored with the net.

    Returns:
        The prompt and what follows it.

    Raises:
        UserError: for a net that is no language model, a prompt that its vocabulary does not have, and options out of
            their range.

    Example:
        localearn.generate(localearn.load_net("runs/..."), "ROMEO:", length=200)

    """
    codec = codec or getattr(net, "codec", None)
    if not isinstance(codec, Codec):
        raise UserError(
            f"this {type(net).__name__} brings no vocabulary, so it continues no text; train one by dataset=text, in "
            "Python on localearn.data.text, or give codec= there"
        )
    if net.takes.vocabulary != codec.size:
        has = "values" if net.takes.vocabulary is None else f"{net.takes.vocabulary} tokens"
        raise UserError(f"{type(net).__name__} takes {has}, and the vocabulary has {codec.size}; give the one it has")
    try:
        ids = codec.encode(prompt)
    except UserError as error:
        raise UserError(f"prompt={prompt!r}: {error}") from error
    if not len(ids):
        raise UserError("a prompt has one token at least; give prompt=...")
    was_training = net.training
    net.eval()
    try:
        device = next(net.parameters()).device
        window = net.input_shape[0]
        written = continuation(
            net, ids.tolist(), window, length=length, temperature=temperature, seed=seed, device=device
        )
    finally:
        net.train(was_training)
    return prompt + codec.decode(written)


@torch.no_grad()
def continuation(
    predict: Callable[[Tensor], Tensor],
    ids: Sequence[int],
    window: int,
    *,
    length: int,
    temperature: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> list[int]:
    """Generate the ids that follow others by a causal model.

    Args:
        predict: maps (1, window) ids to logits, (1, window, V), of which those at a position depend on no later one.
        ids: the context, one id at least; the last `window` of them are seen.
        window: the positions that the model takes.
        length: the number of ids to draw.
        temperature: of the draw; 0 takes the likeliest.
        seed: of the draw.
        device: the model's device.

    Raises:
        UserError: for a length or a temperature out of its range.

    """
    if length < 0:
        raise UserError(f"length must be 0 or more, not {length}")
    if not 0 <= temperature < float("inf"):
        raise UserError(f"temperature must be 0 or more, not {temperature}")
    generator = torch.Generator().manual_seed(seed)
    seen = list(ids)[-window:]
    written: list[int] = []
    for _ in range(length):
        # Later positions are not seen by the last one, and rules and exported programs take rows of a fixed length.
        x = torch.tensor([seen + [0] * (window - len(seen))], device=device)
        logits = predict(x)[0, len(seen) - 1].float().cpu()
        if not logits.isfinite().all():
            raise UserError("the net's outputs are not finite, so no token can be drawn; its training diverged")
        chances = (logits / temperature).softmax(-1) if temperature else None
        if chances is None or not chances.isfinite().all():  # logits / temperature overflows: it is 0 in all but name
            found = int(logits.argmax())
        else:
            found = int(torch.multinomial(chances, 1, generator=generator))
        written.append(found)
        seen = [*seen, found][-window:]
    return written
