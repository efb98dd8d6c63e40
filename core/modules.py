"""The losses as ``nn.Module``s: a class for each row of ``core.losses``, made of its functions.

Those of ``darts.utils.losses`` are drop-in, without darts' NaN gradients. darts replaces a quotient
that is NaN or infinite by 0 *after* dividing, so the division still poisons the backward pass:
0 * inf is NaN. Here the gradient is the row's ``slope``: 0 where the quotient was replaced,
elsewhere darts' own, bit for bit. All is ``torch.where`` and plain arithmetic, so the modules work
under ``torch.func.vmap`` and ``torch.compile``.

A gradient that overflows is clamped only where the loss itself makes it infinite, which is where it
overflows for an incoming gradient of 1, too. What overflows only because of the incoming one, as
``torch.amp.GradScaler`` makes it, stays infinite, so that the scaler sees it and lowers the scale.
So does what is infinite already, and what overflows on its way to a narrower type.
"""

from __future__ import annotations  # torch.compile cannot evaluate those of an inner function

from functools import cache
from inspect import Parameter as Argument
from inspect import Signature
from textwrap import fill
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from loss_scoring.core.losses import LOSSES, Loss
from loss_scoring.core.losses.in_torch import TorchElements, in_torch
from loss_scoring.core.losses.loss import Element
from loss_scoring.core.options import LossSpec

Reduction = Literal["mean", "sum", "none"]
_REDUCTIONS = ("mean", "sum", "none")


def _wide(tensor: Tensor) -> Tensor:
    """Convert half types to float32, in which no term overflows and no difference cancels."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _How(NamedTuple):
    row: Loss
    elements: TorchElements
    values: list[bool | float]
    mean: bool
    """Whether the terms are averaged as they are."""


class _Terms(torch.autograd.Function):
    """The term of each element, 0 without a quotient, with its derivatives by p and y.

    ``share`` is what gets to an element of a gradient of 1 that comes to the loss; None means
    1, or for ``1 / T`` if the terms are averaged. There is no forward-mode rule:
    ``torch.compile`` refuses a Function that has one.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        p: Tensor,
        y: Tensor,
        share: Tensor | None,  # noqa: ARG004 - for backward
        how: _How,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the terms, and where there is no quotient; None if the loss has none at all."""
        term = how.elements.term(p, y, *how.values)
        if not how.row.has_quotient:
            return term, None
        masked = term - term != 0  # where it is not finite; isfinite() is five operations
        return term.masked_fill(masked, 0), masked

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor | None]
    ) -> None:
        p, y, share, ctx.how = inputs
        masked = output[1]
        if masked is not None:
            ctx.mark_non_differentiable(masked)
        ctx.save_for_backward(p, y, share, masked)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, (p, y, share, masked) = grads[0], ctx.saved_tensors
        row, elements, values, mean = ctx.how
        if share is None:
            share = grad.new_full((), 1 / max(grad.numel(), 1) if mean else 1)
        share = share.to(grad.dtype).expand_as(grad)

        def derivative(slope: Element, joined: Element | None) -> Tensor:
            gradient = grad
            if row.is_steep:  # two at once: what p and y alone decide is computed once
                gradient = torch.stack([grad, share])
            factors, gradient = gradient, slope(p, y, gradient, *values)
            if joined is not None:
                single = joined(_wide(p), _wide(y), _wide(factors), *values).to(gradient.dtype)
                gradient = torch.where(gradient.isfinite(), gradient, single)
            if row.is_steep:
                gradient, alone = gradient.unbind()
                limit = torch.finfo(gradient.dtype).max
                clamped = gradient.clamp(-limit, limit)
                overflows = alone.isinf() & (grad - grad == 0)
                gradient = torch.where(overflows, clamped, gradient)
            return gradient if masked is None else gradient.masked_fill(masked, 0)

        by_p, by_y = ctx.needs_input_grad[:2]
        return (
            derivative(elements.slope, elements.joined) if by_p else None,
            derivative(elements.target_slope, elements.target_joined) if by_y else None,
            None,
            None,
        )


def _root(mean: Tensor) -> Tensor:
    """Return the square root, with gradient 0 where it is 0."""
    is_zero = mean == 0
    return torch.where(is_zero, 0, torch.where(is_zero, 1, mean).sqrt())


class LossModule(nn.Module):
    """A loss of ``core.losses`` as a module; the classes that derive from it each have a ``row``.

    Args:
        values: The parameters of the loss, in the order of its row; also by name.
        reduction: ``"mean"`` (default), ``"sum"`` or ``"none"``; only ``"mean"`` for a loss that is
            a root or a quotient of sums.

    Raises:
        ValueError: If the loss does not take such a value or reduction.

    Example:
        >>> from loss_scoring.core import MAELoss, SmapeLoss
        >>> prediction, target = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 2.0])
        >>> MAELoss()(prediction, target)
        tensor(1.5000)
        >>> MAELoss()(prediction, target, weight=torch.tensor([3.0, 1.0]))
        tensor(1.2500)
        >>> SmapeLoss(block_denom_grad=False, reduction="none")(prediction, target)
        tensor([0.3333, 0.3333])
    """

    row: ClassVar[Loss]
    elements: ClassVar[TorchElements]
    single: ClassVar[TorchElements]
    """The same without ``joined``, for a slope that is one term."""

    def __init__(self, *values: bool | float, **named: Any) -> None:
        super().__init__()
        given = _signature(self.row).bind(*values, **named)
        given.apply_defaults()
        self.reduction: Reduction = given.arguments.pop("reduction")
        for name, value in LossSpec(self.row.name, **given.arguments).parameters.items():
            setattr(self, name, value)
        self._check_reduction()

    def _check_reduction(self) -> None:
        if self.reduction not in _REDUCTIONS:
            raise ValueError(
                f"reduction is one of {', '.join(_REDUCTIONS)}, not {self.reduction!r}"
            )
        if self.reduction != "mean" and not self.row.is_mean:
            raise ValueError(
                f"reduction of {self.row.name} is mean, not {self.reduction!r}: it is no mean of "
                "terms, so an element has no loss; weights are an argument of forward"
            )

    def forward(self, inpt: Tensor, tgt: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``inpt`` (the prediction) against ``tgt`` (the target).

        Args:
            inpt: Predicted values, any shape, any floating dtype.
            tgt: Actual values, of the same shape.
            weight: A weight w for each element, of the same shape; that it is finite and at least 0
                is for the caller to see to. ``mean`` is then sum(w l) / sum(w) over the terms l,
                ``sum`` is sum(w l), and ``none`` is w l.

        Returns:
            A scalar (``mean`` or ``sum``), or a tensor of the inputs' shape (``none``). It is 0,
            with gradients of 0, where the sum that it is divided by is 0, so that a batch without
            weight leaves a model as it is.

        Raises:
            ValueError: If the shapes differ; the inputs are never broadcast.
        """
        if inpt.shape != tgt.shape:
            raise ValueError(
                f"inpt and tgt must have the same shape, not {tuple(inpt.shape)} "
                f"and {tuple(tgt.shape)}"
            )
        if weight is not None and weight.shape != inpt.shape:
            raise ValueError(
                f"weight must have the shape of inpt, {tuple(inpt.shape)}, "
                f"not {tuple(weight.shape)}"
            )
        if self.reduction != "mean":
            self._check_reduction()
        dtype = torch.promote_types(inpt.dtype, tgt.dtype)
        p, y = inpt.to(dtype), tgt.to(dtype)
        if weight is not None or self.row.denominator is not None:
            return self._weighted(p, y, weight).to(dtype)
        terms = self._terms(p, y, None)
        if self.reduction == "mean":
            mean = terms.mean()
            return _root(mean) if self.row.root else mean
        return terms if self.reduction == "none" else terms.sum()

    def _weighted(self, p: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
        """Return the loss by its sums, which are those of float32 at least."""
        # Of p's shape even if it is 1: a tensor without one would leave the type of p.
        factor = torch.ones((), device=p.device).expand_as(p) if weight is None else weight
        factor = factor.to(torch.promote_types(p.dtype, torch.float32))
        if self.reduction != "mean":
            terms = factor * self._terms(p, y, factor)
            return terms if self.reduction == "none" else terms.sum()
        base = factor
        if self.elements.denominator is not None:
            values = [getattr(self, name) for name in self.row.parameters]
            base = factor * self.elements.denominator(p, y, *values)
        divisor = base.sum()
        is_void = (1 / divisor).isinf()
        divisor = torch.where(is_void, 1, divisor)
        total = (factor * self._terms(p, y, factor / divisor)).sum()
        mean = torch.where(is_void, 0, total / divisor)
        return _root(mean) if self.row.root else mean

    def _terms(self, p: Tensor, y: Tensor, share: Tensor | None) -> Tensor:
        row, elements = self.row, self.elements
        values = [getattr(self, name) for name in row.parameters]
        if row.autograd:
            return cast("Tensor", elements.term(p, y, *values))
        if row.joined_unless and getattr(self, row.joined_unless):
            elements = self.single
        how = _How(row, elements, values, self.reduction == "mean")
        terms: Tensor = _Terms.apply(p, y, share, how)[0]  # type: ignore[no-untyped-call]
        return terms

    def extra_repr(self) -> str:
        """Show what differs from the defaults in the module's repr."""
        defaults = _signature(self.row).parameters.values()
        shown = ((rule.name, getattr(self, rule.name), rule.default) for rule in defaults)
        return ", ".join(f"{name}={value!r}" for name, value, usual in shown if value != usual)


@cache
def _signature(row: Loss) -> Signature:
    """Return the arguments of a module: the parameters, also by position as in darts."""
    rules = row.parameters.items()
    arguments = [
        Argument(name, Argument.POSITIONAL_OR_KEYWORD, default=rule.default) for name, rule in rules
    ]
    return Signature([*arguments, Argument("reduction", Argument.KEYWORD_ONLY, default="mean")])


@cache
def module_of(row: Loss) -> type[LossModule]:
    """Return the class of a loss, whose name is the row's ``module``.

    Raises:
        ValueError: If it has none.
    """
    if not row.module:
        raise ValueError(
            f"{row.name} has no module: it is divided by a scale of each series, which weights of "
            "another loss can be"
        )

    def __init__(self: LossModule, *values: bool | float, **named: Any) -> None:  # noqa: N807 - so inspect.signature finds it
        LossModule.__init__(self, *values, **named)

    own = Argument("self", Argument.POSITIONAL_ONLY)
    signature = _signature(row)
    __init__.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])  # type: ignore[attr-defined]
    elements = in_torch(row)
    members = {
        "row": row,
        "elements": elements,
        "single": elements._replace(joined=None, target_joined=None),
        "__init__": __init__,
        "__doc__": _docstring(row),
        "__module__": __name__,
    }
    return type(row.module, (LossModule,), members)


def _docstring(row: Loss) -> str:
    masks = "An element whose term is NaN or infinite has value 0, counts in T and has gradient 0"
    paragraphs = [
        f"{row.title[0].upper()}{row.title[1:]}.",
        f"The loss is ``{row.formula}``, from {row.source}.",
        f"Its derivative by an element of the prediction is ``{row.gradient}``.",
        f"{masks}; darts' is NaN." if row.has_quotient else "NaN and infinite inputs propagate.",
    ]
    arguments = []
    for name, rule in row.parameters.items():
        values = "True or False" if rule.is_flag else rule.bounds
        arguments.append(f"    {name}: {values}, {rule.default} by default.")
    reductions = '``"mean"`` (default), ``"sum"`` or ``"none"``' if row.is_mean else '``"mean"``'
    text = "\n\n".join(fill(paragraph, 96) for paragraph in paragraphs)
    return "\n".join([text, "", "Args:", *arguments, f"    reduction: {reductions}.", ""])


def __getattr__(name: str) -> type[LossModule]:
    for row in LOSSES.values():
        if row.module == name:
            return module_of(row)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
