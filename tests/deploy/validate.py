"""Holds every object of every variant against its schema: ``python tests/deploy/validate.py``.

With ``--crds FOLDER`` what is no part of Kubernetes is held against the CustomResourceDefinitions
there, in the place of our own schemas.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import crds
import jsonschema
import kubernetes_validate
from rendered import VARIANTS, Document, render, why_not

OLDEST, NEWEST = "1.30", "1.37"
"""A preStop that sleeps needs no feature gate from 1.30 on."""


def check(
    document: Document,
    version: str,
    custom: Mapping[tuple[str, str], crds.Schema] = crds.BY_HAND,
) -> str:
    """Return which schema an object fits; unknown fields fail.

    Raises:
        jsonschema.ValidationError: If it does not fit.
    """
    kind = document["apiVersion"], document["kind"]
    if kind in custom:
        jsonschema.Draft202012Validator(custom[kind]).validate(document)
        return "CRD"
    return kubernetes_validate.validate(document, version, strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crds", type=Path)
    folder = parser.parse_args().crds
    custom = crds.real(folder) if folder else crds.BY_HAND
    if reason := why_not():
        raise SystemExit(reason)
    for variant in VARIANTS:
        print(variant)
        for document in render(variant).documents:
            fits = [check(document, version, custom) for version in (OLDEST, NEWEST)]
            print(f"  {document['apiVersion']:30} {document['kind']:22} fits {', '.join(fits)}")


if __name__ == "__main__":
    main()
