"""The batches of one run at their providers: created, found again, looked at, cancelled, and their files removed."""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spark_llm.batches.calls import BatchRequestError
from spark_llm.batches.client import BatchClient
from spark_llm.batches.upload import FILE_PREFIX
from spark_llm.enrich.batch_jobs.collecting import Ended
from spark_llm.enrich.batch_jobs.ledger import File, Ledger
from spark_llm.protocol.batches.objects import BatchState

_FIRST_QUOTA_WAIT_S, _MAX_QUOTA_WAIT_S = 60.0, 1800.0
GONE = BatchState("", "gone", ended=True)
"""The state of a batch that the provider does not know, or does not show to this key."""

_logger = logging.getLogger("spark_llm.enrich")


@dataclass
class Batches:
    """The files of requests that a ledger knows, and their batches.

    Attributes:
        ledger: The ledger, which gets an event for each batch that is created.
        clients: The provider of each column that the job fills.
        keep_files: Whether files stay with the provider.
        quota_wait_s: Seconds until the next attempt after a quota was used up; they double each time.
        files: The files, by key.
        states: Their batches as they were seen last, by key of the file.
    """

    ledger: Ledger
    clients: Mapping[str, BatchClient]
    keep_files: bool = False
    quota_wait_s: float = _FIRST_QUOTA_WAIT_S
    files: dict[str, File] = field(default_factory=dict)
    states: dict[str, BatchState] = field(default_factory=dict)
    _create_at_s: float = -math.inf  # after a quota was used up

    def __post_init__(self) -> None:
        """Take note of the files that an earlier run has collected, and may not have removed."""
        self._collected = [file for file in self.files.values() if file.ended and file.column in self.clients]

    def add(self, files: Iterable[File]) -> None:
        """Add files, which have no batches yet."""
        self.files.update({file.key: file for file in files})

    @property
    def open(self) -> list[File]:
        """The files of the job's columns whose batches have not ended, or were not created yet."""
        return [file for file in self.unfinished if file.column in self.clients]

    @property
    def unfinished(self) -> list[File]:
        """The same, and those of columns that the job does not fill any more."""
        return [file for file in self.files.values() if not file.ended]

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence about the batches of columns that the job does not fill any more, if there are some."""
        others = [file for file in self.unfinished if file.column not in self.clients]
        if not others:
            return ()
        columns = ", ".join(sorted({repr(file.column) for file in others}))
        of_columns = f"{len(others)} batch{'es' * (len(others) != 1)} of {columns}, which this job does not fill,"
        return (f"{of_columns} remain with the provider: a job that fills it collects them.",)

    @property
    def open_keys(self) -> list[str]:
        """The keys of the files that are open."""
        return [file.key for file in self.open]

    def adopt(self) -> None:
        """Find the batches that a run created when it was killed, before it wrote them down.

        A batch that found no room counts as none. A file without a batch is removed, and its requests are sent again
        where they are still wanted. Then the list is read once more: a batch that was created just then is found, or
        it has no file and costs nothing.
        """
        for file in self.open:
            state = None if file.batch_id is None else self.clients[file.column].get(file.batch_id)
            if state is not None and state.is_quota:
                file.batch_id = None
        self._adopt_listed()
        lost = [file for file in self.open if file.batch_id is None]
        for file in lost:
            self._delete(self.clients[file.column], file.file_id)
        if lost:
            self._adopt_listed()
            dropped = {file.key: "dropped" for file in lost if file.batch_id is None}
            self.ledger.append(self.ledger.ends(dropped, self.files))
            for key in dropped:
                self.files[key].ended = True

    def _adopt_listed(self) -> None:
        """Take the batches of the provider's list whose file is one of ours without a batch."""
        lost = {file.file_id: file for file in self.open if file.batch_id is None}
        by_key, found = {file.key: file for file in lost.values()}, []
        for column in {file.column for file in lost.values()}:
            for state in self.clients[column].list():
                key = state.key or ""
                file = lost.get(state.input_file_id or "") or by_key.get(key) or by_key.get(key.rpartition("-")[0])
                if file is not None and file.batch_id is None and not state.is_quota:
                    file.batch_id, file.creations = state.id, file.creations + 1
                    found.append(file)
        self.ledger.append_created(found)

    def create(self) -> None:
        """Create a batch for each file that has none; where a quota is used up, later."""
        if time.monotonic() < self._create_at_s:
            return
        new = []
        try:
            for file in self.open:
                if file.batch_id is None:
                    file.creations += 1
                    new.append(file)
                    state = self.clients[file.column].create(file.file_id, file.batch_key)
                    file.batch_id, self.states[file.key] = state.id, state
                    _logger.info("column %s: batch %s is created", file.column, state.id)
        except BatchRequestError as error:
            new.pop().creations -= 1
            if not error.is_quota:
                raise
            self._wait_for_quota()
        finally:
            self.ledger.append_created(new)

    def poll(self) -> list[Ended]:
        """Look at each batch, and return those that have ended since the last look."""
        ended = []
        for file in self.open:
            if file.batch_id is None:
                continue
            state = self.clients[file.column].get(file.batch_id) or GONE
            self.states[file.key] = state
            if state.is_quota:
                file.batch_id = None
                self._wait_for_quota()
            elif state.ended:
                ended.append(Ended(file, state))
        return ended

    def end(self, ended: Iterable[Ended]) -> None:
        """Take note that the replies of these batches are in the ledger, and remove their files."""
        self._create_at_s = -math.inf  # there is room for another batch
        for file, state in ended:
            file.ended = True
            _logger.info(
                "batch %s is %s: %d answered, %d failed", state.id, state.status, state.completed, state.failed
            )
            self._remove(file, state)

    def remove_collected(self) -> None:
        """Remove the files of batches that an earlier run has collected: it may have been killed before it did."""
        for file in self._collected:
            state = None if file.batch_id is None else self.clients[file.column].get(file.batch_id)
            self._remove(file, state or GONE)
        self._collected.clear()

    def cancel(self) -> None:
        """Ask the provider to cancel each batch; those that have ended stay as they are."""
        for file in self.open:
            if file.batch_id is not None:
                self.clients[file.column].cancel(file.batch_id)

    def sweep(self, runs: Iterable[str]) -> None:
        """Remove the files that these runs uploaded and that belong to no batch: of tasks that ran twice, or died."""
        prefixes = tuple(f"{FILE_PREFIX}{run}-" for run in runs)
        known = {file.file_id for file in self.files.values()}
        for client in {id(each): each for each in self.clients.values()}.values():
            try:
                names = list(client.files())
            except BatchRequestError as error:
                _logger.info("the files of earlier tasks are not listed: %s", error.what)
                continue
            for file_id, name in names:
                if name.startswith(prefixes) and file_id not in known:
                    self._delete(client, file_id)

    def progress(self) -> str:
        """Return a sentence about the batches that are open; empty where there are none."""
        states = [self.states[key] for key in self.open_keys if key in self.states]
        total = sum(state.total for state in states)
        done = sum(state.completed + state.failed for state in states)
        count = len(self.open)
        return f"{count} batch{'es' * (count != 1)} out, {done:,} of {total:,} requests done" if count else ""

    def _wait_for_quota(self) -> None:
        self._create_at_s = time.monotonic() + self.quota_wait_s
        self.quota_wait_s = min(2 * self.quota_wait_s, _MAX_QUOTA_WAIT_S)
        _logger.info("the provider's quota of enqueued tokens is used up; the next batch is created later")

    def _remove(self, file: File, state: BatchState) -> None:
        for file_id in (file.file_id, state.output_file_id, state.error_file_id):
            if file_id is not None and not self.keep_files:
                self._delete(self.clients[file.column], file_id)

    def _delete(self, client: BatchClient, file_id: str) -> None:
        try:
            client.delete(file_id)
        except BatchRequestError as error:  # the provider removes it after a month
            _logger.info("the file %s is not removed: %s", file_id, error.what)
