"""A loss of the service as a torch module, so that a training loop works unchanged.

Needs torch: ``pip install 'lossclient[torch]'``. Nothing else in this package imports it.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lossclient.client import Client

Reduction = Literal["mean", "sum", "none"]
_HALF = (torch.float16, torch.bfloat16)
_NUMBERS = (
    *_HALF, torch.float32, torch.float64,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
)  # fmt: skip
_NO_MEANS = frozenset({"mase", "rmse", "rmsse", "wape"})
"""Those that are a root or a quotient of sums, so that an element has none; no answer tells."""
_REDUCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"mean": Tensor.mean, "sum": Tensor.sum, "none": Tensor.clone}
)


class RemoteLoss(nn.Module):
    """A loss computed by the service, its gradient included; in place of one of ``core.losses``.

    A forward pass is one request, with gradients only where autograd needs them. The backward pass
    sends nothing. Semantics are darts': no factor 100, an element without a finite
    quotient counts as 0, NaN and infinite elements propagate.

    The elements of a batch, whatever its shape, go as one series, whose mean and gradient are then
    those of the batch; cut into several, a gradient would be rounded twice. So one batch must fit
    a request of the service: 128 MiB by default, some 11 Mi elements in float32. For ``sum`` and
    ``none`` each element is a series of its own, for the same reason; its answer weighs more, and
    it goes in as many requests as it takes.

    Of finite values in float32 or in float64, gradients are the bits of the local module's where
    the backward pass begins at the loss itself. A factor from above (the loss was scaled, or is a
    term of a larger one) is multiplied in last, where autograd begins with it: then the last bits
    may differ. So may those of the loss, which is summed in float64 and then rounded, where torch
    sums in the tensors' own type. Half types are computed in float32, and the gradient is rounded
    after that factor: what overflows because of it is infinite, as a gradient scaler needs it. What
    the loss itself makes infinite is clamped, whatever finite factor comes.

    ``torch.compile`` breaks the graph here. It runs under ``torch.func.grad``, and not under
    ``torch.func.vmap``. A copy shares the client; a pickle holds what one of the `Client` holds.

    Args:
        client: Sends the requests, with its retries and deadline. It stays open.
        loss: Its name, such as ``smape``; the service knows which ones it has.
        reduction: ``mean`` (default), ``sum`` or ``none``; only ``mean`` for a loss that is a root
            or a quotient of sums.
        parameters: Those of the loss, such as ``block_denom_grad=False`` of smape.

    Raises:
        ValueError: If there is no such reduction, or the loss does not take it.

    Example:
        >>> from lossclient import Client
        >>> prediction = torch.tensor([1.0, 4.0], requires_grad=True)
        >>> with Client("http://127.0.0.1:8000") as client:
        ...     loss = RemoteLoss(client, "mae")(prediction, torch.tensor([2.0, 2.0]))
        >>> loss.backward()
        >>> loss.item(), prediction.grad
        (1.5, tensor([-0.5000,  0.5000]))
    """

    def __init__(
        self,
        client: Client,
        loss: str = "smape",
        *,
        reduction: Reduction = "mean",
        **parameters: bool | float,
    ) -> None:
        super().__init__()
        self.client = client
        self.loss = loss
        self.reduction = reduction
        self.loss_parameters = parameters
        self._check_reduction()

    def _check_reduction(self) -> None:
        if self.reduction not in _REDUCTIONS:
            raise ValueError(
                f"reduction is one of {', '.join(_REDUCTIONS)}, not {self.reduction!r}"
            )
        if self.reduction != "mean" and self.loss in _NO_MEANS:
            raise ValueError(
                f"reduction of {self.loss} is mean, not {self.reduction!r}: it is no mean of "
                "terms, so an element has no loss; weights are an argument of forward"
            )

    def forward(self, inpt: Tensor, tgt: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``inpt`` (the prediction) against ``tgt`` (the target).

        Args:
            inpt: Predicted values, any shape, floats or integers, on any device.
            tgt: Actual values, of the same shape; they get no gradient.
            weight: What each element weighs, of the same shape, finite and at least 0; no gradient
                either. ``mean`` is then the sum of weighted losses over the sum of the weights.

        Returns:
            A scalar (``mean`` or ``sum``), or a tensor of the inputs' shape (``none``), on the
            device of ``inpt``, in the type that torch makes of both. It is 0, with gradients of 0,
            where the sum that it is divided by is 0, so that a batch without weight leaves a model
            as it is.

        Raises:
            ValueError: If the shapes differ (nothing is broadcast), ``tgt`` or ``weight`` wants a
                gradient, or the loss does not take a reduction that was set meanwhile.
            TypeError: If they are of another type.
            RuntimeError: If it runs under ``torch.func.vmap``.
            LossClientError: If the service does not answer with a loss.
        """
        if torch.compiler.is_compiling():
            disable: Any = torch.compiler.disable
            return disable(self._score, reason="RemoteLoss sends a request")(inpt, tgt, weight)  # type: ignore[no-any-return]
        return self._score(inpt, tgt, weight)

    def _score(self, inpt: Tensor, tgt: Tensor, weight: Tensor | None) -> Tensor:
        self._check_reduction()  # trainers set it while they train
        sides = {"inpt": inpt, "tgt": tgt} | ({} if weight is None else {"weight": weight})
        for name, side in sides.items():
            if inpt.shape != side.shape:
                raise ValueError(
                    f"inpt and {name} must have the same shape, not {tuple(inpt.shape)} "
                    f"and {tuple(side.shape)}"
                )
            if side.dtype not in _NUMBERS:
                raise TypeError(f"{name} must hold floats or integers, not {side.dtype}")
            if torch.is_grad_enabled() and side.requires_grad and name != "inpt":
                raise ValueError(f"the service has no gradient for {name}; pass {name}.detach()")
        dtype = torch.promote_types(inpt.dtype, tgt.dtype)
        if not dtype.is_floating_point:
            dtype = torch.get_default_dtype()
        if not inpt.numel():  # an empty series is refused
            weighted_mean = weight is not None and self.reduction == "mean"
            return _REDUCTIONS["sum" if weighted_mean else self.reduction]((inpt - tgt).to(dtype))
        gradient = torch.is_grad_enabled() and inpt.requires_grad
        return _Remote.apply(inpt, tgt, weight, self, dtype, gradient)[0]  # type: ignore[no-any-return, no-untyped-call]

    def request(
        self,
        inpt: Tensor,
        tgt: Tensor,
        weight: Tensor | None,
        dtype: torch.dtype,
        *,
        gradient: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the loss, and on request its gradient by each element, in float32 for halves."""
        shape = (1, -1) if self.reduction == "mean" else (-1, 1)
        weights = None if weight is None else weight.detach().double().cpu()
        factors = None
        if self.reduction != "mean":  # the mean of a single element is itself, whatever it weighs
            weights, factors = None, weights
        scores = self.client.score_series(
            _sent(inpt, dtype).numpy(force=True).reshape(shape),
            _sent(tgt, dtype).numpy(force=True).reshape(shape),
            losses=[{"name": self.loss, **self.loss_parameters}],
            gradients=gradient,
            missing="propagate",
            weights=None if weights is None else weights.numpy().reshape(shape),
            progress=False,
        )
        (losses,) = scores.losses.values()
        values = torch.tensor(losses)  # a copy: Arrow's memory is read-only
        for masked in scores.masked.values():  # NaN in all of a series: nothing to divide by
            values[values.isnan() & torch.tensor(masked == scores.lengths)] = 0
        values = values if factors is None else values * factors.ravel()
        values = values.reshape(inpt.shape) if self.reduction == "none" else values.sum()
        loss = values.to(inpt.device, dtype)
        if not gradient:
            return loss, None
        (slopes,) = scores.gradients.values()
        flat = torch.tensor(slopes)
        flat = flat if factors is None else (flat * factors.ravel()).to(flat.dtype)
        return loss, flat.reshape(inpt.shape).to(inpt.device)

    def extra_repr(self) -> str:
        """Show the loss, and what differs from the defaults."""
        shown = [repr(self.loss)]
        shown += [f"{name}={value!r}" for name, value in self.loss_parameters.items()]
        if self.reduction != "mean":
            shown.append(f"reduction={self.reduction!r}")
        return ", ".join(shown)


def _sent(side: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a side in a type that the service takes; integers become what torch computes with."""
    if side.dtype in _HALF or not side.dtype.is_floating_point:
        return side.to(torch.promote_types(dtype, torch.float32))
    return side


class _Remote(torch.autograd.Function):
    """Requests loss and gradient together, and keeps the gradient for the backward pass."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - those of `request`
        inpt: Tensor,
        tgt: Tensor,
        weight: Tensor | None,
        module: RemoteLoss,
        dtype: torch.dtype,
        gradient: bool,  # noqa: FBT001 - torch passes it by position
    ) -> tuple[Tensor, Tensor | None]:
        return module.request(inpt, tgt, weight, dtype, gradient=gradient)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor | None]
    ) -> None:
        gradient = output[1]
        if gradient is not None:
            ctx.mark_non_differentiable(gradient)
        ctx.save_for_backward(inputs[0], gradient)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inpt, _ = ctx.saved_tensors
        gradient = _Constant.apply(*ctx.saved_tensors)  # type: ignore[no-untyped-call]
        product = grads[0] * gradient
        limit = min(torch.finfo(side.dtype).max for side in (grads[0], gradient))
        alone = gradient.abs() >= limit  # it overflows without a factor; the service clamps its own
        clamped = product.clamp(-limit, limit)
        product = torch.where(alone & grads[0].isfinite(), clamped, product)
        return product.to(inpt.dtype), None, None, None, None, None

    @staticmethod
    def vmap(_info: Any, _in_dims: Any, *_inputs: Any) -> Any:
        raise RuntimeError(
            "RemoteLoss does not run under torch.func.vmap, which would be a request for each "
            "element: call it on all of them, with reduction='none'"
        )


class _Constant(torch.autograd.Function):
    """The gradient, tied to the prediction that it depends on.

    Without the tie a second derivative would silently be 0.
    """

    @staticmethod
    def forward(_inpt: Tensor, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Save nothing."""

    @staticmethod
    def backward(_ctx: Any, *_grads: Tensor) -> tuple[Tensor, None]:
        raise RuntimeError("RemoteLoss has no second derivative: the service sends only the first")
