"""DeepFM: the factorisation machine's identity, the forward pass in NumPy, codes and values, rules on it."""

import itertools

import numpy as np
import pytest
import torch

from localearn.data import ArrayData, Batch
from localearn.errors import UserError
from localearn.export import export
from localearn.nets import DeepFM
from localearn.nets.deepfm import Products
from localearn.tasks import Regression
from localearn.trainers import Backprop, DirectFeedbackAlignment, MonoForward


def rows(n=7, categories=(3, 4), values=2):
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(size, (n,), generator=generator) for size in categories], 1)
    return torch.cat([codes.double(), torch.randn(n, values, generator=generator).double()], 1)


def net(**options):
    torch.manual_seed(1)
    return DeepFM((4,), 3, categories=(3, 4), dim=5, widths=(6, 4), **options).double()


def test_the_sum_of_squares_is_that_of_all_pairs():
    columns, dim = 6, 5
    z = torch.randn(9, columns + columns * dim, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    h = Products(columns, dim)(z)
    first, products, vectors = h[:, :columns], h[:, columns : columns + dim], h[:, columns + dim :]
    assert torch.equal(first, z[:, :columns]) and torch.equal(vectors, z[:, columns:])
    each = vectors.view(9, columns, dim).numpy()
    pairs = sum(each[:, i] * each[:, j] for i, j in itertools.combinations(range(columns), 2))
    np.testing.assert_allclose(products.numpy(), pairs, rtol=1e-12, atol=1e-12)


def test_the_forward_pass_is_the_equations():
    """Independent NumPy, column by column: w_i x_i, v_i x_i, pairs, the deep part, and a readout of all three."""
    made, x = net(), rows()
    state = {name: value.numpy() for name, value in made.state_dict().items()}
    starts, outputs = (0, 3), []
    for row in x.numpy():
        first, vectors = [], []
        for column, start in enumerate(starts):
            place = start + int(row[column])
            first.append(state["blocks.0.op.first.weight"][place, 0])
            vectors.append(state["blocks.0.op.vectors.weight"][place])
        for number, value in enumerate(row[2:]):
            first.append(state["blocks.0.op.value_first"][number] * value)
            vectors.append(state["blocks.0.op.value_vectors"][5 * number : 5 * number + 5] * value)
        pairs = sum(a * b for a, b in itertools.combinations(vectors, 2))
        deep = np.concatenate(vectors)
        for k in (1, 2):
            weight, bias = (state[f"blocks.{k}.op.module.{name}"] for name in ("weight", "bias"))
            deep = np.maximum(weight @ deep + bias, 0)
        read = np.concatenate([first, pairs, deep])
        outputs.append(state["readout.weight"] @ read + state["readout.bias"])
    np.testing.assert_allclose(made(x).detach().numpy(), outputs, rtol=1e-10, atol=1e-12)
    assert made.widths == (4 + 5 + 20, 4 + 5 + 6, 4 + 5 + 4)


def test_with_ones_at_the_machines_part_it_is_the_published_net():
    """y = sum w_i x_i + sum_{i<j} <v_i x_i, v_j x_j> + deep: Guo et al., eq. 1 and 2."""
    torch.manual_seed(0)
    made, x = DeepFM(4, 1, categories=(3, 4), dim=5, widths=(6,)).double(), rows()
    with torch.no_grad():
        weight, bias = made.get_parameter("readout.weight"), made.get_parameter("readout.bias")
        weight[:, : 4 + 5] = 1
        h = list(made.outputs(x))
        each = h[0][:, 9:].view(-1, 4, 5)
        pairs = sum((each[:, i] * each[:, j]).sum(1) for i, j in itertools.combinations(range(4), 2))
        deep = h[1][:, 9:] @ weight[0, 9:] + bias
        torch.testing.assert_close(made(x)[:, 0], h[0][:, :4].sum(1) + pairs + deep)


@pytest.mark.parametrize(("categories", "values"), [((), 4), ((3, 4), 0), ((3,), 3)])
def test_tables_of_values_of_categories_and_of_both_are_taken(categories, values):
    torch.manual_seed(0)
    made = DeepFM(len(categories) + values, 2, categories=categories, widths=(8,)).double()
    assert made(rows(categories=categories, values=values) if categories else torch.randn(7, 4).double()).shape == (
        7,
        2,
    )
    assert made.takes.categories == categories


def test_a_category_moves_its_own_embedding_alone():
    made, x = net(), rows()
    x[:, 0] = 1
    made(x).sum().backward()
    used = made.get_parameter("blocks.0.op.vectors.weight").grad
    assert used is not None
    assert used[1].abs().sum() > 0 and used[0].abs().sum() == used[2].abs().sum() == 0


def test_the_same_net_is_of_the_same_bits_after_it_is_saved():
    made, x = net(norm="batch").eval(), rows()
    other = DeepFM((4,), 3, categories=(3, 4), dim=5, widths=(6, 4), norm="batch").double().eval()
    other.load_state_dict(made.state_dict())
    assert torch.equal(made(x), other(x))


@pytest.mark.parametrize("rule", [Backprop, MonoForward, DirectFeedbackAlignment])
def test_rules_learn_a_product_of_two_categories_that_no_sum_of_theirs_tells(rule):
    """The target is a +1 or -1 of both codes' parities: first order is nothing, the pair everything."""
    codes = torch.tensor([[a, b] for a in range(6) for b in range(6)] * 4).float()
    y = ((codes[:, :1] + codes[:, 1:]) % 2 * 2 - 1).float()
    parts = {split: (codes, y) for split in ("train", "val", "test")}
    task = Regression()
    data = ArrayData(
        "parity",
        {split: part[0] for split, part in parts.items()},  # pyright: ignore[reportArgumentType]
        {split: part[1] for split, part in parts.items()},  # pyright: ignore[reportArgumentType]
        0,
        task=task,
        categories=(6, 6),
    )
    torch.manual_seed(0)
    made = DeepFM(2, 1, categories=data.categories, dim=4, widths=(8,)).for_task(task)
    record = rule(made).fit(
        data, epochs=60, batch_size=24, progress=False, energy=False, optim=lambda p: torch.optim.Adam(p, lr=0.02)
    )
    r2 = record.metric("r2", "test")
    assert r2 is not None and r2 > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (3, 4)}, r"DeepFM takes rows of columns, \(F,\), not \(3, 4\); use dataset=table"),
        ({"dim": 0}, "dim must be positive whole numbers, not 0"),
        ({"widths": ()}, "widths must be a list of positive whole numbers"),
        ({"norm": "bacth"}, "no norm 'bacth'; did you mean 'batch'"),
        ({"categories": (3, 4, 5, 6, 7)}, r"5 categories need as many columns, and a row is \(4,\)"),
    ],
)
def test_options_that_cannot_be_met_are_told(options, message):
    with pytest.raises(UserError, match=message):
        DeepFM(**{"input_shape": (4,), "classes": 2, **options})


def test_data_whose_codes_are_none_are_refused():
    y = {split: torch.zeros(3, dtype=torch.long) for split in ("train",)}
    for wrong in (4.0, -1.0, 0.5):
        x = {"train": torch.tensor([[0.0, 1.0], [1.0, wrong], [2.0, 0.0]])}
        with pytest.raises(UserError, match=f"x_train holds {wrong:g} in column 1; codes of 4 categories are whole"):
            ArrayData("own", x, y, 1, categories=(3, 4))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"x_train has shape \(3, 2\); categories are of 3 columns"):
        ArrayData("own", {"train": torch.zeros(3, 2)}, y, 1, categories=(3, 4, 2))  # pyright: ignore[reportArgumentType]


def test_a_batch_of_bfloat16_reaches_the_same_embeddings():
    made = net().to(torch.bfloat16)
    assert made(rows().to(torch.bfloat16)).dtype == torch.bfloat16
    assert Batch(rows(), torch.zeros(7, 1)).x.shape == (7, 4)


@pytest.mark.parametrize("kind", ["torch_export", "onnx"])
def test_it_is_exported_with_codes_in_its_columns(door, tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    lines = [f"{['a', 'b', 'c'][n % 3]},{n % 7},{n % 5}.5" for n in range(40)]
    (tmp_path / "x.csv").write_text("word,number,value\n" + "\n".join(lines))
    ended = door("dataset=table", "dataset.path=x.csv", "dataset.target=value", "dataset.categories=codes",
                 "net=deepfm", "epochs=1", "progress=false", "energy.enabled=false", "out=run")  # fmt: skip
    assert ended.status == 0, ended.err
    assert export(tmp_path / "run", kind, tmp_path / "net") < 1e-5
