"""The loss modules of ``darts.utils.losses``, drop-in, with gradients that are always finite.

darts replaces a quotient that is NaN or infinite by 0 *after* dividing, so the division still
poisons the backward pass: 0 * inf is NaN. Here the division never happens where its result is not
wanted (both operands are replaced first), so those elements get gradient 0 and every other
element gets darts' own gradient, bit for bit. All is ``torch.where`` and plain arithmetic, so the
modules work under ``torch.func.vmap`` and ``torch.compile``. The one gradient with two terms, that
of sMAPE with the gradient of its denominator, is written out in ``_FullQuotient``.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

Reduction = Literal["mean", "sum", "none"]
_REDUCTIONS = ("mean", "sum", "none")


class _FiniteGradient(torch.autograd.Function):
    """Identity whose backward pass clamps an infinite gradient to the dtype's largest value.

    There is no forward-mode rule: ``torch.compile`` refuses a Function that has one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing is saved: the clamp depends on the gradient alone."""

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        limit = torch.finfo(grad.dtype).max
        return grad.clamp(-limit, limit)


def _finite_gradient(x: Tensor) -> Tensor:
    return _FiniteGradient.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """``numerator / denominator``, with value 0 and gradient 0 where that is NaN or infinite."""
    usable = torch.isfinite(numerator / denominator)
    numerator = torch.where(usable, _finite_gradient(numerator), 0)
    denominator = torch.where(usable, _finite_gradient(denominator), 1)
    return numerator / denominator


class _FullQuotient(torch.autograd.Function):
    """``|a - b| / (|a| + |b|)``, with value 0 and gradient 0 where that is NaN or infinite.

    The gradient has autograd's bits where autograd's is finite. Over a subnormal denominator one of
    its two terms overflows, or both, and then it is computed as one term, as the kernels do.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        quotient = (a - b).abs() / (a.abs() + b.abs())
        return torch.where(quotient.isfinite(), quotient, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004 - torch passes it by name
        """Keep the inputs; quotients are computed again."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,), (a, b) = grads, ctx.saved_tensors
        by_a, by_b = ctx.needs_input_grad
        return (
            _full_gradient(a, b, grad) if by_a else None,
            _full_gradient(b, a, grad) if by_b else None,
        )


def _full_gradient(a: Tensor, b: Tensor, grad: Tensor) -> Tensor:
    """Return the derivative by ``a``, which looks the same as that by ``b``."""
    denominator = a.abs() + b.abs()
    quotient = (a - b).abs() / denominator
    sign, side = (a - b).sign(), a.sign()
    gradient = sign * (grad / denominator) - side * (grad * (quotient / denominator))
    joined = (sign - side * quotient) * grad / denominator
    gradient = torch.where(gradient.isfinite(), gradient, joined)
    return torch.where(quotient.isfinite(), gradient, 0)


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
        # Clamped here, too: the gradients of a numerator and a denominator meet in the inputs.
        terms = self.terms(_finite_gradient(inpt), _finite_gradient(tgt))
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
        return _quotient(tgt - inpt, tgt).abs()


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
        if not self.block_denom_grad:
            return _FullQuotient.apply(inpt, tgt)  # type: ignore[no-any-return, no-untyped-call]
        denominator = tgt.abs() + inpt.abs()
        return _quotient((tgt - inpt).abs(), denominator.detach())

    def extra_repr(self) -> str:
        """Show what differs from the defaults in the module's repr."""
        shown = "" if self.block_denom_grad else "block_denom_grad=False"
        return ", ".join(filter(None, (shown, super().extra_repr())))
