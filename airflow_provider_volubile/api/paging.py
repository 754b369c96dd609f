"""Walk through a list page by page while it grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from airflow_provider_volubile.api.models import ApiModel, Page
from airflow_provider_volubile.exceptions import VolubileProtocolError

ItemT = TypeVar("ItemT", bound=ApiModel)


def walk(operation: str, fetch: Callable[[int], Page[ItemT]]) -> Iterator[ItemT]:
    """Yield each item once, page after page.

    Items that are added at the head of the list meanwhile push others onto the next page: those come twice and are
    dropped here; none is missed.

    :raises VolubileProtocolError: the server says there is more, but answers with the same page again. Going on would
        never end, and stopping would silently lose the rest.
    """
    seen: set[str] = set()
    number = 1
    before: int | None = None
    while True:
        page = fetch(number)
        if number > 1 and page.page is not None and page.page == before:
            raise _stuck(operation, number, len(seen))
        known = len(seen)
        for item in page.content:
            identifier = str(item.id)  # type: ignore[attr-defined]
            if identifier not in seen:
                seen.add(identifier)
                yield item
        if not page.received or _is_last(page, number):
            return
        if page.page is None and len(seen) == known:
            raise _stuck(operation, number, len(seen))
        before = page.page
        number += 1


def _is_last(page: Page[ItemT], number: int) -> bool:
    if page.total_pages is not None:
        return number >= page.total_pages
    return page.size is not None and page.received < page.size


def _stuck(operation: str, number: int, read: int) -> VolubileProtocolError:
    return VolubileProtocolError(
        f"{operation}: page {number} brings nothing new although there is more: the server does not turn pages as "
        f"documented. {read} items were read.",
        operation=operation,
    )
