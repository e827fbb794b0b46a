"""Reads a page of metrics as Prometheus does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric
    from prometheus_client.samples import Sample

Page = dict[str, "Metric"]
"""The families of a page by name."""


async def scrape(url: str) -> Page:
    """The page at `url`, in Prometheus' text format."""
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        return parse(await answer.text())


def parse(text: str) -> Page:
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(page: Page, family: str, suffix: str = "", **labels: str) -> Iterator[Sample]:
    """The samples of a family with these labels, of one suffix such as `_count`."""
    for sample in page[family].samples if family in page else ():
        if sample.name == family + suffix and labels.items() <= sample.labels.items():
            yield sample


def value(page: Page, family: str, suffix: str = "", **labels: str) -> float:
    """The value of the one sample with these labels."""
    [sample] = samples(page, family, suffix, **labels)
    return sample.value
