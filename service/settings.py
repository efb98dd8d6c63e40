"""Every setting of the service, each also an environment variable ``LOSS_SCORING_<NAME>``."""

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from loss_scoring.service import __version__
from loss_scoring.service.environment import PREFIX, is_link

MEBI = 1 << 20
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9._:\[\]-]+")
"""As browsers send it: in lower case, without a path, even a slash."""
_MAY_BE_EMPTY = "cors_origins", "api_keys"
"""No origin is the default; and that no key is an error is said where keys are read."""


class Settings(BaseSettings):
    """Settings with defaults that are safe on a small machine."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto (CUDA when present, else the CPU), cpu, cuda or cuda:N.",
    )
    frontends: int = Field(
        0,
        ge=0,
        le=64,
        description="HTTP processes that share one device worker in a process of its own; 0 does "
        "all in one process.",
    )
    max_body_bytes: int = Field(
        128 * MEBI, gt=0, description="Largest request body, also once decompressed."
    )
    max_json_bytes: int = Field(
        32 * MEBI,
        gt=0,
        description="Largest JSON body; smaller, as JSON parsing holds up other requests.",
    )
    max_elements: int = Field(
        16 * MEBI, gt=0, description="Most elements (pairs of prediction and target) a request."
    )
    batch_elements: int = Field(
        4 * MEBI, gt=0, description="Elements a device batch aims at; larger requests are cut."
    )
    inline_elements: int = Field(
        4096,
        ge=0,
        description="Requests up to so many elements skip the queue when the device is the CPU.",
    )
    idle_inline_elements: int = Field(
        2 * MEBI,
        ge=0,
        description="The same for a request that is alone in the server; 0 leaves it to threads.",
    )
    max_queued_elements: int = Field(
        64 * MEBI,
        gt=0,
        description="Elements that may wait; beyond them requests get 503, and clients that fill "
        "most of the queue 429.",
    )
    max_open_bytes: int = Field(
        1024 * MEBI,
        gt=0,
        description="Bytes of bodies and answers in memory; beyond them requests get 503, and "
        "clients that hold most of them 429.",
    )
    default_timeout_ms: int = Field(
        60_000, gt=0, description="Deadline of a request that sends no X-Request-Timeout-Ms."
    )
    max_timeout_ms: int = Field(
        600_000, gt=0, description="Longest deadline; X-Request-Timeout-Ms is cut to it."
    )
    hung_s: int = Field(
        60, gt=0, description="A batch that takes so many seconds means that the device hangs."
    )
    max_header_bytes: int = Field(
        32 << 10, gt=0, description="Largest request line and headers together."
    )
    header_timeout_s: float = Field(
        10, gt=0, description="Seconds from the first byte of a request to complete headers."
    )
    keep_alive_s: int = Field(
        75,
        gt=0,
        description="Seconds that a connection may stay open without a request; longer than load "
        "balancers (60 as a rule) and clients (5 to 15) keep it, or their next request is cut off.",
    )
    body_timeout_s: float = Field(
        30, gt=0, description="Seconds for a body, beside what min_body_bytes_per_s adds."
    )
    min_body_bytes_per_s: int = Field(
        64 << 10, gt=0, description="Bytes of a body that give it one more second."
    )
    write_timeout_s: float = Field(
        30, gt=0, description="Seconds in which a client must read the next 512 KiB of an answer."
    )
    api_keys_file: Path | None = Field(
        None,
        description="File of keys, one a line; requests then need one. Read again when it changes.",
    )
    api_keys: SecretStr | None = Field(
        None, description="The same, separated by commas; by environment only, as flags are public."
    )
    auth_probes: bool = Field(
        False,  # noqa: FBT003 - pydantic's signature
        description="Whether /livez, /healthz, /readyz, /metrics, /v2/health/live and "
        "/v2/health/ready need a key as well.",
    )
    auth_pages: bool = Field(
        False,  # noqa: FBT003 - pydantic's signature
        description="Whether the pages at / and /docs, and /openapi.json, need a key as well; no "
        "browser sends one by itself.",
    )
    cors_origins: str | None = Field(
        None,
        description="Origins whose pages may call the service from a browser, such as "
        "https://app.example, with commas between them; or *.",
    )
    shutdown_s: int = Field(
        25, gt=0, description="Seconds that requests in progress get to finish on SIGTERM."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Lines of JSON, or text; auto is text at a terminal, else JSON."
    )
    access_log: bool = Field(
        False,  # noqa: FBT003 - pydantic's signature
        description="Whether each request leaves a line; a small one takes a fifth longer then.",
    )

    def summary(self, device: str) -> str:
        """Return a line for the log: version, device, and the settings that are no defaults."""
        fields = type(self).model_fields
        changed = {
            name: "(hidden)" if isinstance(value, SecretStr) else value
            for name, value in self
            if value != fields[name].default
        }
        words = ", ".join(f"{name}={value}" for name, value in changed.items())
        return f"loss-scoring {__version__} on {device}; settings: {words or 'the defaults'}"

    @classmethod
    def from_environment(cls) -> Self:
        """Return what the environment says."""
        given: dict[str, Any] = {}
        return cls(**given)

    @model_validator(mode="before")
    @classmethod
    def _without_links(cls, given: dict[str, Any]) -> dict[str, Any]:
        if is_link(f"{PREFIX}PORT", str(given.get("port"))):
            return {name: value for name, value in given.items() if name != "port"}
        return given

    @field_validator("*", mode="before")
    @classmethod
    def _is_filled_in(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what is empty, which for a host means all addresses of the machine."""
        name = str(info.field_name)
        if isinstance(value, str) and not value.strip() and name not in _MAY_BE_EMPTY:
            raise ValueError(
                f"{PREFIX}{name.upper()} or its flag is empty; unset it, or fill it in"
            )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, text: str | None) -> str | None:
        origins = [origin.strip() for origin in (text or "").split(",") if origin.strip()]
        for origin in origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin as browsers send it; write https://app.example, "
                    "without a path or a slash behind it"
                )
        return ",".join(origins) or None

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        if self.max_queued_elements < 2 * self.max_elements:
            raise ValueError("max_queued_elements must be at least twice max_elements")
        if self.max_open_bytes < 2 * self.max_body_bytes:
            raise ValueError("max_open_bytes must be at least twice max_body_bytes")
        if self.max_timeout_ms < self.default_timeout_ms:
            raise ValueError("max_timeout_ms must be at least default_timeout_ms")
        return self
