"""Bodies of the Open Inference Protocol to requests.

The numbers of JSON are read in pieces, as those of any long body. Those behind a document lie at
any address, and are copied where they are not aligned.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from math import prod
from typing import Annotated, Any, Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from loss_scoring.core import Ragged, ScoreOptions, invalid_weights
from loss_scoring.core.table import VALID_WEIGHT, narrowest
from loss_scoring.service.codecs.json.loop import COMMA, count_of
from loss_scoring.service.codecs.json.parse import (
    OBJECT_BYTES,
    PIECE,
    LongValue,
    elements_of,
    fields_of,
    read_document,
)
from loss_scoring.service.codecs.options import (
    Strict,
    checked,
    kind_of,
    options_from_parameters,
)
from loss_scoring.service.codecs.pools import NUMBERS
from loss_scoring.service.codecs.request import Limits, Memory, check_elements, position
from loss_scoring.service.codecs.tensors.request import OUTPUTS, Call, TensorRequest
from loss_scoring.service.errors import (
    Faults,
    FieldError,
    InvalidError,
    TooLargeError,
    UnreadableError,
)

_NAMES = ("prediction", "target", "offsets", "weight", "scale")
_NUMBER_BYTES = 16
"""What a number of JSON takes: as it is read, and as it is computed with."""
_COPY_BYTES = 8
"""The same of one behind the document."""
_DTYPES = {
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
}
_DEEPEST = 8
_Count = Annotated[int, Field(ge=0, lt=1 << 48)]


class _InputParameters(Strict):
    binary_data_size: _Count | None = None


class _Input(Strict):
    name: Literal[_NAMES]  # type: ignore[valid-type]
    datatype: Literal[tuple(_DTYPES)]  # type: ignore[valid-type]
    shape: list[_Count] = Field(min_length=1, max_length=3)
    parameters: _InputParameters | None = None


class _OutputParameters(Strict):
    binary_data: bool | None = None


class _Output(Strict):
    name: Literal[tuple(OUTPUTS)]  # type: ignore[valid-type]
    parameters: _OutputParameters | None = None


class _Document(Strict):
    id: str | None = None
    model_name: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[_Input]
    outputs: list[_Output] | None = None


class _Tensor(NamedTuple):
    """Numbers in the type in which they were sent, flat, and their shape."""

    shape: tuple[int, ...]
    numbers: NDArray[Any]


def decode(
    body: memoryview, call: Call, limits: Limits, max_json_bytes: int, memory: Memory
) -> TensorRequest:
    """Read a request.

    Raises:
        UnreadableError: If the document is not JSON, or the body is shorter than it says.
        InvalidError: If document, shapes or values break the contract.
        TooLargeError: If it is over a limit.
    """
    size = len(body) if call.json_bytes is None else call.json_bytes
    if size > len(body):
        raise UnreadableError(f"the body ends before the {size} bytes of its inference header")
    if size > max_json_bytes:
        raise TooLargeError(
            f"the JSON has {size} bytes, this server takes {max_json_bytes}; send binary tensors"
        )
    text = body[:size].toreadonly()
    numbers = count_of(np.frombuffer(text, np.uint8), COMMA) + 1
    reserved = _NUMBER_BYTES * numbers + OBJECT_BYTES * min(size, PIECE)
    memory.reserve(reserved)
    faults = Faults()
    document, data = _document(text, faults, memory)
    faults.check()
    # Each dimension counts, as offsets are made of one though another is 0.
    sizes = (max(prod(tensor.shape), *tensor.shape) for tensor in document.inputs)
    elements = max(sizes, default=0)
    check_elements(elements, limits.elements)
    memory.reserve(reserved + _COPY_BYTES * elements * len(document.inputs))
    tensors = _tensors(document.inputs, data, body[size:], numbers, faults)
    outputs, options = _options(document, call.loss, faults)
    faults.check()
    return _request(document.id, tensors, outputs, options)


def _document(text: memoryview, faults: Faults, memory: Memory) -> tuple[_Document, list[Any]]:
    """Return the document without the data of its inputs, and these."""
    value = read_document(text, memory.check)
    fields = fields_of(value)
    if fields is None:
        raise InvalidError(f"the body must be an object, not {_kind_of(value)}")
    pieces = elements_of(fields.get("inputs"))
    inputs, data = [], []
    for entry in islice(chain.from_iterable(pieces or ()), len(_NAMES) + 1):  # more are repeated
        described = fields_of(entry)
        if described is not None:
            data.append(described.pop("data", None))
        inputs.append(_short(entry if described is None else described))
    if pieces is not None:
        fields["inputs"] = inputs
    document = checked(_Document, _short(fields), faults)
    faults.check()
    return cast("_Document", document), data


def _short(value: Any, depth: int = 0) -> Any:
    """Return a value without what is long in it: no text or list but data is."""
    if isinstance(value, dict):
        if depth == _DEEPEST:
            raise InvalidError(f"an object is within {_DEEPEST} others")
        return {name: _short(field, depth + 1) for name, field in value.items()}
    if isinstance(value, LongValue):
        raise InvalidError(f"a value that is no data is over {PIECE} bytes long")
    return value


def _tensors(
    inputs: Sequence[_Input], data: Sequence[Any], behind: memoryview, most: int, faults: Faults
) -> dict[str, _Tensor]:
    """Return the tensors by name.

    Args:
        inputs: What the document says of them.
        data: The data of each in it, None for what has none.
        behind: What is behind it.
        most: The most numbers that can be in it.
        faults: Where faults are noted.
    """
    tensors: dict[str, _Tensor] = {}
    start = 0
    for entry, value in zip(inputs, data, strict=True):
        shape, dtype, pointer = tuple(entry.shape), _DTYPES[entry.datatype], f"/{entry.name}"
        size = None if entry.parameters is None else entry.parameters.binary_data_size
        expected = dtype.itemsize * prod(shape)
        if entry.name in tensors:
            faults.add(pointer, "appears more than once")
        elif size is None:
            tensors[entry.name] = _Tensor(shape, _from_json(value, entry, most, faults))
            continue
        elif value is not None:
            faults.add(pointer, "has data and binary_data_size")
        elif size != expected:
            detail = f"{entry.datatype} of shape {entry.shape} has {expected}"
            faults.add(pointer, f"has a binary_data_size of {size}; {detail}")
        faults.check()
        part = behind[start : start + expected]
        if len(part) < expected:
            raise UnreadableError(f"the body ends within the {expected} bytes of {entry.name}")
        tensors[entry.name] = _Tensor(shape, np.frombuffer(part, dtype))
        start += expected
    if start < len(behind):
        raise UnreadableError(f"{len(behind) - start} bytes follow the last binary tensor")
    return tensors


def _from_json(value: Any, entry: _Input, most: int, faults: Faults) -> NDArray[Any]:
    """Return the numbers of data in a document, in the type that it has there."""
    pointer, dtype, count = f"/{entry.name}", _DTYPES[entry.datatype], prod(entry.shape)
    if elements_of(value) is None:
        faults.add(pointer, f"data must be a list of numbers, not {_kind_of(value)}")
    elif entry.datatype == "FP16":
        faults.add(pointer, "FP16 is read in binary only, as JSON has no such numbers")
    elif count > most:
        faults.add(pointer, _shape_fault(entry.shape))
    faults.check()
    is_integer = dtype.kind in "iu"
    numbers = NUMBERS.empty(count, dtype if is_integer else np.float64)
    filled = 0
    try:
        for piece in _leaves(value, entry.shape):
            allowed = {int} if is_integer else {int, float, type(None)}
            if not set(map(type, piece)) <= allowed:
                i = next(i for i, number in enumerate(piece) if type(number) not in allowed)
                wanted = "an integer" if is_integer else "a number or null"
                detail = f"must be {wanted}, not {_kind_of(piece[i])}"
                raise _invalid(f"{pointer}/{filled + i}", detail)
            numbers[filled : filled + len(piece)] = piece
            filled += len(piece)
    except ValueError:
        raise _invalid(pointer, _shape_fault(entry.shape)) from None
    except OverflowError:
        raise _invalid(pointer, f"holds a number that is too large for {entry.datatype}") from None
    if not is_integer:
        with np.errstate(over="ignore"):
            numbers = numbers.astype(dtype, copy=False)
        # null became NaN, so an infinity can only be a number that was too large.
        faults.add_each(
            np.flatnonzero(np.isinf(numbers)),
            lambda i: (f"{pointer}/{i}", f"is too large for {entry.datatype}"),
        )
    return numbers


def _leaves(value: Any, shape: Sequence[int]) -> Iterator[list[Any]]:
    """Yield the numbers of data, which is flat or nested as its shape says, in pieces.

    Raises:
        ValueError: If it is neither.
    """
    count, expected = 0, shape[0]
    for piece in elements_of(value) or ():
        if len(shape) > 1 and piece and elements_of(piece[0]) is not None:
            for row in piece:
                if elements_of(row) is None:
                    raise ValueError
                yield from _leaves(row, shape[1:])
        else:
            expected = prod(shape)
            yield piece
        count += len(piece)
    if count != expected:
        raise ValueError


def _options(
    document: _Document, loss: str, faults: Faults
) -> tuple[Mapping[str, bool], ScoreOptions]:
    """Return which outputs are asked for, and whether in binary; and the options."""
    given = dict(document.parameters or {})
    all_binary = given.pop("binary_data_output", False)
    if not isinstance(all_binary, bool):
        detail = f"must be true or false, not {kind_of(all_binary)}"
        faults.add("/parameters/binary_data_output", detail)
    if document.model_name not in (None, loss):
        faults.add("/model_name", f"is {document.model_name!r}, and the path names {loss}")
    outputs: dict[str, bool] = {}
    for output in document.outputs or ():
        if output.name in outputs:
            faults.add("/outputs", f"names {output.name} more than once")
        is_binary = None if output.parameters is None else output.parameters.binary_data
        outputs[output.name] = all_binary if is_binary is None else is_binary
    if not outputs:
        outputs = dict.fromkeys(OUTPUTS, all_binary)
    gradients = "gradient" in outputs
    return outputs, options_from_parameters(loss, given, faults, gradients=gradients)


def _request(
    name: str | None,
    tensors: Mapping[str, _Tensor],
    outputs: Mapping[str, bool],
    options: ScoreOptions,
) -> TensorRequest:
    """Return the request that tensors make, once their shapes fit one another."""
    faults = Faults()
    for side in _NAMES[:2]:
        if side not in tensors:
            faults.add("/inputs", f"{side} is absent")
    faults.check()
    shape = tensors["prediction"].shape
    for other in ("target", "weight"):
        if other in tensors and tensors[other].shape != shape:
            detail = f"has the shape {[*tensors[other].shape]}, prediction {[*shape]}"
            faults.add(f"/{other}", detail)
    offsets = _offsets(shape, tensors.get("offsets"), faults)
    faults.check()
    series = len(offsets) - 1
    _check_scale(tensors.get("scale"), series, options, faults)
    sides = [tensors[side].numbers for side in _NAMES[:2]]
    narrow = narrowest(pa.from_numpy_dtype(side.dtype) for side in sides) == pa.float32()
    prediction, target = (_as(side, np.float32 if narrow else np.float64) for side in sides)
    further = {
        extra: _as(tensors[extra].numbers, np.float64) if extra in tensors else None
        for extra in ("weight", "scale")
    }
    channels = shape[2] if len(shape) > 2 else 0
    weights = further["weight"]
    if weights is not None:

        def fault(element: int) -> tuple[str, str]:
            row = int(np.searchsorted(offsets, element, side="right")) - 1
            place = position(channels, int(element - offsets[row]))
            rule = f"is {weights[element]:g}; it must be {VALID_WEIGHT}"
            return f"/weight/{row}/{place}", f"of series {row} {rule}"

        faults.add_each(invalid_weights(weights), fault)
    faults.check()
    return TensorRequest(
        Ragged.trusted(prediction, offsets),
        Ragged.trusted(target, offsets),
        options,
        ids=range(series),
        channels=np.full(series, channels) if channels else None,
        weights=weights,
        scales=further["scale"],
        name=name,
        shape=shape,
        outputs=outputs,
    )


def _offsets(shape: Sequence[int], given: _Tensor | None, faults: Faults) -> NDArray[np.int64]:
    """Return the offsets of the series: those given, or of the rows that the shape says."""
    if given is None:
        rows, length = (1 if len(shape) == 1 else shape[0]), prod(shape[1:] or shape)
        if rows and not length:
            faults.add("/prediction", f"{[*shape]} is a shape of empty series")
        return np.arange(rows + 1) * length
    if len(shape) != 1 or len(given.shape) != 1:
        both = f"prediction has the shape {[*shape]}, and they {[*given.shape]}"
        faults.add("/offsets", f"are for tensors of one dimension, and have one; {both}")
    elif given.numbers.dtype.kind not in "iu":
        faults.add("/offsets", "must be integers")
    faults.check()
    offsets = given.numbers.astype(np.int64)
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != shape[0]:
        faults.add("/offsets", f"must begin with 0 and end with {shape[0]}, the last of prediction")
    faults.add_each(
        np.flatnonzero(offsets[1:] <= offsets[:-1]),
        lambda i: (f"/offsets/{i + 1}", f"series {i} is empty: offsets must increase"),
    )
    return offsets


def _check_scale(scale: _Tensor | None, series: int, options: ScoreOptions, faults: Faults) -> None:
    loss = options.losses[0].name
    if scale is None and options.scaled:
        faults.add("/scale", f"is absent; {loss} must have one a series")
    elif scale is not None and not options.scaled:
        faults.add("/scale", f"{loss} takes none")
    elif scale is not None and scale.shape != (series,):
        faults.add("/scale", f"has the shape {[*scale.shape]}; one a series is {[series]}")


def _as(numbers: NDArray[Any], dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """Return numbers in a type, aligned and writable, as kernels take them."""
    if numbers.dtype == dtype and numbers.flags.behaved:
        return numbers
    copied = NUMBERS.empty(numbers.size, dtype)
    copied[:] = numbers
    return copied


def _shape_fault(shape: Sequence[int]) -> str:
    return f"data must be {prod(shape)} numbers, flat or nested as the shape {[*shape]} says"


def _invalid(pointer: str, detail: str) -> InvalidError:
    return InvalidError(f"{pointer}: {detail}", (FieldError(pointer, detail),))


def _kind_of(value: object) -> str:
    return kind_of(value.kind if isinstance(value, LongValue) else value)
