"""Reads what /metrics says, by the parser of the library."""

import httpx
from prometheus_client.parser import text_string_to_metric_families


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(text):
    """Return values by name and labels."""
    found = {}
    for family in families(text).values():
        for sample in family.samples:
            key = sample.name, *sorted(sample.labels.items())
            assert key not in found, "nothing stands twice"
            found[key] = sample.value
    return found


def total(text, name, **labels):
    """Sum the samples of a name that have the labels."""
    return sum(
        value
        for (sample, *having), value in samples(text).items()
        if sample == name and set(labels.items()) <= set(having)
    )


def scrape(url):
    """Ask on a connection of its own, which leads to any process."""
    return httpx.get(f"{url}/metrics", timeout=60).raise_for_status().text
