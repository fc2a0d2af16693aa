"""Ridge regression from one pass over the rows: the normal equations are summed, then solved."""

import torch
from torch import Tensor, nn

from localearn.errors import UserError
from localearn.trainers.local.losses import encoded_targets


class NormalEquations:
    """Solve for the linear map that minimises the mean squared error with a ridge, from one pass over the rows.

        mean_i |Y_i - W h_i - b|^2 + ridge s |W|^2      Y_i (C,), one-hot of a label; h_i (n,); W (C, n); s the mean
                                                        square of all features, so that ridge has no unit
        (A + ridge s N diag(1, ..., 1, 0)) [W b]^T = B  A = sum_i h_i h_i^T, (n+1, n+1); B = sum_i h_i Y_i^T, (n+1, C);
                                                        h_i with a 1 appended where there is a bias

    A, of which the lower triangle is enough, and B are float64 and are all that is held: no matrix has a row for each
    sample. A bias carries no ridge.

    Args:
        predictor: the map to be set, from n to C.
        ridge: as above, 0 or more.
        labels: whether targets are labels, each row of Y having a square of 1; else values.

    """

    STRIP = 1024  # columns of A at a time, each from its diagonal down

    def __init__(self, predictor: nn.Linear, ridge: float, *, labels: bool = True):
        """Begin with no rows."""
        self.predictor, self.ridge, self.labels = predictor, ridge, labels
        device = predictor.weight.device
        self._device = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
        size = predictor.in_features + (predictor.bias is not None)
        self._a = torch.zeros(size, size, dtype=torch.float64, device=self._device)
        self._b = torch.zeros(size, predictor.out_features, dtype=torch.float64, device=self._device)
        self._rows = torch.zeros((), dtype=torch.float64, device=self._device)
        self._squares = None if labels else torch.zeros((), dtype=torch.float64, device=self._device)  # sum_i |Y_i|^2

    def add(self, h: Tensor, y: Tensor, counted: Tensor | None = None) -> None:
        """Add rows to the sums.

        Args:
            h: features, (M, n).
            y: labels, (M,), or values, (M, C).
            counted: (M,) bool, the rows that count; None: all. Other rows are multiplied by zero, so that shapes do not
                depend on values.

        """
        h = h.to(self._device).double()
        if self.predictor.bias is not None:
            h = torch.cat([h, h.new_ones(len(h), 1)], dim=1)
        if counted is not None:
            h = h * counted.to(self._device).unsqueeze(1)
        for start in range(0, h.shape[1], self.STRIP):
            stop = start + self.STRIP
            self._a[start:, start:stop].addmm_(h[:, start:].T, h[:, start:stop])
        target = encoded_targets(y.to(self._device), self.predictor.out_features).double()
        self._b.addmm_(h.T, target)
        if self._squares is not None:
            self._squares += target.square().sum()
        self._rows += len(h) if counted is None else counted.sum().to(self._device)

    def sums(self) -> list[Tensor]:
        """Return A, B and N, and the squares of values, to which other rows' may be added."""
        return [self._a, self._b, self._rows, *([] if self._squares is None else [self._squares])]

    def solve(self) -> Tensor:
        """Set the predictor to the solution and return its mean squared error over the rows, a scalar.

        A is used up.

        Raises:
            UserError: when A has no Cholesky factor in float64.

        """
        n, bias = self.predictor.in_features, self.predictor.bias
        diagonal = self._a.diagonal()[:n]
        square = diagonal.mean()  # s N
        penalty = self.ridge * torch.where(square > 0, square, 1)
        diagonal.add_(penalty)
        factor, failed = torch.linalg.cholesky_ex(self._a)
        if failed.item():
            finite = bool(self._a.isfinite().all())
            why = "ridge is too small for these features; try 1e-2" if finite else "the features are not finite"
            raise UserError(f"ridge={self.ridge}: the normal equations cannot be solved: {why}")
        solution = torch.cholesky_solve(self._b, factor)
        self.predictor.weight.copy_(solution[:n].T)
        if bias is not None:
            bias.copy_(solution[n])
        # From A solution = B - penalty solution.
        square = 1 if self._squares is None else self._squares / self._rows
        return square - ((solution * self._b).sum() + penalty * solution[:n].square().sum()) / self._rows
