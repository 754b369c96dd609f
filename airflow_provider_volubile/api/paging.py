"""Walk through a list page by page while it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from airflow_provider_volubile.api.models import ApiModel, Page
from airflow_provider_volubile.exceptions import VolubileProtocolError

ItemT = TypeVar("ItemT", bound=ApiModel)


def turn_pages(operation: str, fetch: Callable[[int], Page[ItemT]]) -> Iterator[Page[ItemT]]:
    """Yield page after page, to the last.

    Items that are added at the head of the list meanwhile push others onto the next page: those come twice, and none
    is missed.

    :raises VolubileProtocolError: the server says there is more, but answers with the same page again, or with
        nothing. Going on might never end, and stopping would silently lose the rest.
    """
    before: Page[ItemT] | None = None
    ids_before: set[str] = set()
    number = 1
    read = 0
    while True:
        page = fetch(number)
        ids = {str(item.id) for item in page.content}  # type: ignore[attr-defined]
        is_same = before is not None and (
            page.page == before.page if page.page is not None else bool(page.received) and ids <= ids_before
        )
        is_last = _is_last(page, number)
        if is_same or not (page.received or is_last):
            raise VolubileProtocolError(
                f"{operation}: page {number} brings nothing new although there is more: the server does not turn pages "
                f"as documented. {read} items were read.",
                operation=operation,
            )
        yield page
        if is_last:
            return
        read += len(page.content)
        before, ids_before = page, ids
        number += 1


def walk(operation: str, fetch: Callable[[int], Page[ItemT]]) -> Iterator[ItemT]:
    """Yield each item once, page after page.

    :raises VolubileProtocolError: as :func:`turn_pages` does.
    """
    seen: set[str] = set()
    for page in turn_pages(operation, fetch):
        for item in page.content:
            identifier = str(item.id)  # type: ignore[attr-defined]
            if identifier not in seen:
                seen.add(identifier)
                yield item


def _is_last(page: Page[ItemT], number: int) -> bool:
    if page.total_pages is not None:
        return number >= page.total_pages
    return not page.received or (page.size is not None and page.received < page.size)
