"""Where an unfinished training keeps its state: in the store, in a folder of the part, until the part is finished.

A checkpoint is made of what each worker wrote at one step: its files, and after them a record with their digests. It
is whole when the records of all workers are there, so a kill at any moment leaves the last whole one as it was.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.confined import is_confined
from infra.models.wheels import sha256_of
from infra.names import CHECKPOINTS
from infra.storage.large_files import download, upload
from infra.storage.store import Store, StoreError

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one attempt at one part; travels to workers on other nodes."""

    def __init__(self, store_url: str, part: str) -> None:
        """Keep the address. part: the part's own name in the store: stage, key and attempt."""
        self.store_url, self.part = store_url, part

    @property
    def _root(self) -> str:
        return f"{CHECKPOINTS}{self.part}"

    def put(self, step: int, folder: Path, worker: int = 0, workers: int = 1) -> None:
        """Keep the files below a folder as what `worker` of `workers` has to resume from `step`.

        What the first worker finds older than the newest whole checkpoint is deleted.

        Raises:
            StoreError: the store does not take them.
        """
        store, place = Store(self.store_url), f"{self._root}/{step:09d}/{worker:04d}"
        store.delete(f"{place}.json")  # of an attempt that was killed: its files are written anew
        files = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name, digest = path.relative_to(folder).as_posix(), sha256_of(path)
            files[name] = {"sha256": digest, "size": path.stat().st_size}
            upload(store, path, f"{place}/{name}", digest)
        store.replace(f"{place}.json", json.dumps({"workers": workers, "files": files}).encode())
        if worker == 0:
            self._drop_older(store)

    def fetch(self, folder: Path, worker: int = 0, workers: int = 1) -> int | None:
        """Write what `worker` kept with the newest whole checkpoint into a folder, with the files of the first worker.

        A file of the same name is the worker's own. Returns the step, or None where there is no whole checkpoint. A
        damaged one is passed over with a warning.

        Raises:
            StoreError: the store does not answer.
        """
        store = Store(self.store_url)
        for step, records in self._whole(store):
            if len(records) != workers:
                continue
            try:
                for number in dict.fromkeys((0, worker)):
                    self._fetch_files(store, f"{self._root}/{step:09d}/{number:04d}", records[number], folder)
            except StoreError as error:
                _log.warning("the checkpoint of step %d cannot be used, an older one is looked for: %s", step, error)
                continue
            return step
        return None

    def drop(self) -> None:
        """Delete all checkpoints of the part."""
        Store(self.store_url).delete_folder(self._root)

    @staticmethod
    def _fetch_files(store: Store, place: str, record: Mapping[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in record["files"].items():
            if not is_confined(name):
                raise StoreError(f"{place}: file name {name!r} would leave its folder; the record is damaged or forged")
            download(store, f"{place}/{name}", int(file["size"]), folder / name, file["sha256"])

    def _whole(self, store: Store) -> Iterator[tuple[int, list[Mapping[str, Any]]]]:
        """Yield the whole checkpoints with the records of their workers, the newest first."""
        keys = set(store.list(self._root))
        steps = {key.removeprefix(f"{self._root}/").split("/")[0] for key in keys}
        for name in sorted((step for step in steps if step.isdigit()), reverse=True):
            first = store.read_json(f"{self._root}/{name}/0000.json")
            wanted = [
                f"{self._root}/{name}/{number:04d}.json" for number in range(int((first or {}).get("workers", 0)))
            ]
            if wanted and keys.issuperset(wanted):
                records = [store.read_json(key) for key in wanted]
                if all(records):
                    yield int(name), records

    def _drop_older(self, store: Store) -> None:
        newest = next((step for step, _ in self._whole(store)), None)
        if newest is None:
            return
        below = f"{self._root}/"
        old = {key.removeprefix(below).split("/")[0] for key in store.list(self._root)}
        for name in sorted(name for name in old if name.isdigit() and int(name) < newest):
            store.delete_folder(below + name)
