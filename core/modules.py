"""The loss modules of ``darts.utils.losses``, drop-in, without darts' NaN gradients.

darts replaces a quotient that is NaN or infinite by 0 *after* dividing, so the division still
poisons the backward pass: 0 * inf is NaN. Here gradients are written out: 0 where the quotient was
replaced, elsewhere darts' own, bit for bit. All is ``torch.where`` and plain arithmetic, so the
modules work under ``torch.func.vmap`` and ``torch.compile``.

A gradient that overflows is clamped only where the loss itself makes it infinite, which is where it
overflows for an incoming gradient of 1, too. What overflows only because of the incoming one, as
``torch.amp.GradScaler`` makes it, stays infinite, so that the scaler sees it and lowers the scale.
So does what is infinite already, and what overflows on its way to a narrower type.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum", "none"]
_Slope = Callable[[Tensor], Tensor]  # times an incoming gradient, in the order of darts' autograd
_REDUCTIONS = ("mean", "sum", "none")


def _masked(quotient: Tensor) -> Tensor:
    return torch.where(quotient.isfinite(), quotient, 0)


def _wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Convert half types to float32, in which no term overflows and no difference cancels."""
    return tuple(x.to(torch.promote_types(x.dtype, torch.float32)) for x in tensors)


def _first_finite(gradient: Tensor, joined: Tensor) -> Tensor:
    """Take a gradient with two terms as one term where one of the two overflows."""
    return torch.where(gradient.isfinite(), gradient, joined.to(gradient.dtype))


class _Term(torch.autograd.Function):
    """The loss of each element, by a quotient, with its gradients for prediction and target.

    A subclass gives ``forward(p, y, mean, ...)`` and ``backward``; ``mean`` says that the terms are
    averaged, so that 1 is ``1 / T`` when it gets to an element. There is no forward-mode rule:
    ``torch.compile`` refuses a Function that has one.
    """

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - torch passes it by name
        """Keep the inputs; quotients are computed again."""
        p, y, *ctx.options = inputs
        ctx.save_for_backward(p, y)


def _gradient(slope: _Slope, grad: Tensor, usable: Tensor, *, mean: bool) -> Tensor:
    """Return the slope times ``grad``; clamped where the loss overflows, 0 without a quotient."""
    gradient = slope(grad)
    alone = slope(grad.new_ones(()) / (grad.numel() if mean else 1))
    limit = torch.finfo(gradient.dtype).max
    clamped = gradient.clamp(-limit, limit)
    gradient = torch.where(alone.isinf() & grad.isfinite(), clamped, gradient)
    return torch.where(usable, gradient, 0)


class _Percentage(_Term):
    """``|(y - p) / y|``, with value 0 and gradient 0 where that is NaN or infinite."""

    @staticmethod
    def forward(p: Tensor, y: Tensor, mean: bool) -> Tensor:  # noqa: ARG004, FBT001 - for backward
        return _masked((y - p) / y).abs()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (p, y), (mean,) = grads, ctx.saved_tensors, ctx.options
        quotient = (y - p) / y
        sign = quotient.sign()

        def by_p(grad: Tensor) -> Tensor:
            return torch.neg(sign * grad / y)

        def by_y(grad: Tensor) -> Tensor:
            signed = sign * grad
            a, b = _wide(p, y)
            return _first_finite(signed / y - signed * (quotient / y), (a / b) * signed / b)

        of_p, of_y = (
            _gradient(slope, grad, quotient.isfinite(), mean=mean) if needed else None
            for slope, needed in zip((by_p, by_y), ctx.needs_input_grad, strict=False)
        )
        return of_p, of_y, None


class _Symmetric(_Term):
    """``|y - p| / (|y| + |p|)``, with value 0 and gradient 0 where that is NaN or infinite."""

    @staticmethod
    def forward(p: Tensor, y: Tensor, mean: bool, block: bool) -> Tensor:  # noqa: ARG004, FBT001 - for backward
        return _masked((y - p).abs() / (y.abs() + p.abs()))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (p, y), (mean, block) = grads, ctx.saved_tensors, ctx.options
        usable = ((y - p).abs() / (y.abs() + p.abs())).isfinite()
        slope = _blocked_slope if block else _full_slope
        of_p, of_y = (
            _gradient(slope(a, b), grad, usable, mean=mean) if needed else None
            for a, b, needed in zip((p, y), (y, p), ctx.needs_input_grad, strict=False)
        )
        return of_p, of_y, None, None


def _blocked_slope(a: Tensor, b: Tensor) -> _Slope:
    """Return the derivative by ``a``, which looks the same as that by ``b``."""
    sign, denominator = (a - b).sign(), a.abs() + b.abs()
    return lambda grad: sign * grad / denominator


def _full_slope(a: Tensor, b: Tensor) -> _Slope:
    """Return the derivative by ``a`` of denominator and numerator."""
    denominator = a.abs() + b.abs()
    sign, sign_a, quotient = (a - b).sign(), a.sign(), (a - b).abs() / denominator
    second = quotient / denominator
    a, b = _wide(a, b)
    wide = a.abs() + b.abs()
    joined = (a - b).sign() - a.sign() * ((a - b).abs() / wide)

    def slope(grad: Tensor) -> Tensor:
        gradient = sign * (grad / denominator) - sign_a * (grad * second)
        return _first_finite(gradient, joined * grad / wide)

    return slope


class _Loss(nn.Module):
    """Checks shapes and applies the reduction; a subclass gives the element terms."""

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction is one of {', '.join(_REDUCTIONS)}, not {reduction!r}")
        self.reduction = reduction

    def forward(self, inpt: Tensor, tgt: Tensor) -> Tensor:
        """Return the loss of ``inpt`` (the prediction) against ``tgt`` (the target).

        Args:
            inpt: Predicted values, any shape, any floating dtype.
            tgt: Actual values, of the same shape.

        Returns:
            A scalar (``mean`` or ``sum``), or a tensor of the inputs' shape (``none``).

        Raises:
            ValueError: If the shapes differ; the inputs are never broadcast.
        """
        if inpt.shape != tgt.shape:
            raise ValueError(
                f"inpt and tgt must have the same shape, not {tuple(inpt.shape)} "
                f"and {tuple(tgt.shape)}"
            )
        dtype = torch.promote_types(inpt.dtype, tgt.dtype)
        terms = self.terms(inpt.to(dtype), tgt.to(dtype))
        if self.reduction == "none":
            return terms
        return terms.mean() if self.reduction == "mean" else terms.sum()

    def terms(self, inpt: Tensor, tgt: Tensor) -> Tensor:
        """Return the loss of each element, of the inputs' shape."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Show what differs from the defaults in the module's repr."""
        return "" if self.reduction == "mean" else f"reduction={self.reduction!r}"


class MAELoss(_Loss):
    r"""Mean absolute error: :math:`\frac{1}{T}\sum_t |y_t - \hat y_t|`.

    Same as ``darts.utils.losses.MAELoss``. NaN and infinite inputs propagate.

    Args:
        reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``.

    Example:
        >>> import torch
        >>> MAELoss()(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0]))
        tensor(1.5000)
    """

    def terms(self, inpt: Tensor, tgt: Tensor) -> Tensor:
        """Return ``|tgt - inpt|``."""
        return (tgt - inpt).abs()


class MapeLoss(_Loss):
    r"""Mean absolute percentage error: :math:`\frac{1}{T}\sum_t |(y_t - \hat y_t) / y_t|`.

    Same as the code of ``darts.utils.losses.MapeLoss``, which takes the absolute value of the
    whole quotient; the formula printed in darts' documentation divides by :math:`y_t` without it
    and would be negative for negative targets. No factor 100. An element whose quotient is NaN or
    infinite (:math:`y_t = 0`) has value 0, counts in T, and has gradient 0 (NaN in darts).

    Args:
        reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``.

    Example:
        >>> import torch
        >>> MapeLoss()(torch.tensor([1.0, 4.0]), torch.tensor([2.0, 0.0]))
        tensor(0.2500)
    """

    def terms(self, inpt: Tensor, tgt: Tensor) -> Tensor:
        """Return ``|(tgt - inpt) / tgt|``, 0 where that is not finite."""
        return _Percentage.apply(inpt, tgt, self.reduction == "mean")  # type: ignore[no-any-return, no-untyped-call]


class SmapeLoss(_Loss):
    r"""Symmetric MAPE: :math:`\frac{1}{T}\sum_t |y_t - \hat y_t| / (|y_t| + |\hat y_t|)`.

    Same as ``darts.utils.losses.SmapeLoss``: between 0 and 1, no factor 2, 100 or 200. An element
    whose quotient is NaN or infinite (:math:`y_t = \hat y_t = 0`) has value 0, counts in T, and
    has gradient 0 (NaN in darts).

    Args:
        block_denom_grad: Hold the denominator constant in the backward pass (default, as darts:
            it makes training stable).
        reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``.

    Example:
        >>> import torch
        >>> SmapeLoss()(torch.tensor([1.0, 0.0]), torch.tensor([3.0, 0.0]))
        tensor(0.2500)
    """

    def __init__(self, block_denom_grad: bool = True, *, reduction: Reduction = "mean") -> None:  # noqa: FBT001, FBT002 - darts' signature
        super().__init__(reduction=reduction)
        self.block_denom_grad = block_denom_grad

    def terms(self, inpt: Tensor, tgt: Tensor) -> Tensor:
        """Return ``|tgt - inpt| / (|tgt| + |inpt|)``, 0 where that is not finite."""
        mean = self.reduction == "mean"
        return _Symmetric.apply(inpt, tgt, mean, self.block_denom_grad)  # type: ignore[no-any-return, no-untyped-call]

    def extra_repr(self) -> str:
        """Show what differs from the defaults in the module's repr."""
        shown = "" if self.block_denom_grad else "block_denom_grad=False"
        return ", ".join(filter(None, (shown, super().extra_repr())))
