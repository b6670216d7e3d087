"""Searches of the registry, which answers in pages."""

from __future__ import annotations

from mlflow.store.entities import PagedList

from raypath.components.registry.client import _all


def test_every_page_of_a_search_is_read_once() -> None:
    pages = {None: PagedList([1, 2], "a"), "a": PagedList([], "b"), "b": PagedList([3], None)}
    wanted: list[str | None] = []

    def search(filter_string: str | None, page_token: str | None) -> PagedList[int]:
        wanted.append(filter_string)
        return pages.pop(page_token)

    assert list(_all(search, "name = 'reviews'")) == [1, 2, 3]
    assert wanted == ["name = 'reviews'"] * 3
    pages = {None: PagedList([4], "")}
    assert list(_all(search)) == [4]
