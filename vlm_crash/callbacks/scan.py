"""A scan onto disk: the curve as its windows are judged, then the events with their records and clips.

Enters: the probabilities of each batch of windows; then the answers about the windows at the peaks. Leaves in the
output folder: scan_curve.jsonl (a line a window), events.jsonl (a line an event, as it is answered), and at the end
events.csv, recordings.csv, predictions.jsonl (a line a clip, failed recordings included) and a picture of each curve;
clips/.
Must hold: a line is on the disk before the next batch begins; a scan that was stopped at any time goes on where it was,
and ends with the same lines; another model, other windows or files that have changed are not mixed in; what a scan
does after its windows are judged grows with their number, not with its square.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vlm_crash.callbacks.folder_lock import FolderLock
from vlm_crash.callbacks.legacy_results import results_files
from vlm_crash.callbacks.run_record import describe_run, read_run
from vlm_crash.callbacks.scan_events import ScanEvent, ScanSettings, scan_events
from vlm_crash.callbacks.scan_files import (
    CLIPS,
    CURVE,
    EVENT_TABLE,
    EVENTS,
    OTHERWISE,
    RECORDING_TABLE,
    REMEDY,
    RUN,
    clear_clips,
    clear_recordings,
    clear_scan,
    refuse_recordings_in_clips,
)
from vlm_crash.callbacks.scan_image import draw_curves
from vlm_crash.callbacks.scan_lines import LINE_KEYS, by_recording, curve_line, failed_line, in_order, is_failed
from vlm_crash.callbacks.scan_resume import (
    Left,
    all_recordings,
    is_steady,
    left_of,
    named,
    refusal,
    refused_files,
    say_others,
)
from vlm_crash.callbacks.scan_sources import changed_files, hashed_files, hasher, told_files
from vlm_crash.callbacks.scan_tables import event_rows, failures, recording_rows, table
from vlm_crash.callbacks.whole_lines import WholeLines, cannot_write
from vlm_crash.data import parquet
from vlm_crash.data.files import write_files
from vlm_crash.data.prediction_lines import prediction_files
from vlm_crash.data.recordings import ScanPlan, WindowSample, window_sample
from vlm_crash.schema.records import Prediction, VideoSample
from vlm_crash.video.clip_files import readable_name
from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.guarded_windows import cut_clip

log = logging.getLogger(__name__)


class ScanWriter(Callback):
    """Keeps a scan's files.

    Args:
        output_dir: folder for them.
        settings: of the scan.
        overwrite: begin anew where there is a scan already.
        retry_failed: read recordings on that failed, judge windows again that have no probability, and answer again
            where that failed.
    """

    def __init__(
        self, output_dir: Path, settings: ScanSettings, overwrite: bool = False, retry_failed: bool = False
    ) -> None:
        self.output_dir, self.settings = Path(output_dir), settings
        self.overwrite, self.retry_failed = overwrite, retry_failed
        self.recordings: list[VideoSample] = []
        self.curve, self.answered = cast(WholeLines, None), cast(WholeLines, None)  # opened by setup
        self._lock = FolderLock(self.output_dir)
        self._timeout_s: float | None = None
        self._background = self._run_id = ""
        self._event_names: tuple[str, ...] = ()
        self._stems: dict[str, str] = {}
        self._planned: dict[tuple[Any, ...], ScanEvent] = {}
        self._unanswered: dict[tuple[str, int], list[ScanEvent]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at what is there already, and say which windows are to be read."""
        if self.recordings:  # the second time, for the peaks
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.recordings = list(datamodule.samples["predict"])
        schema: Any = pl_module.schema
        self._background, self._event_names = schema.background.name, schema.event_names
        self._timeout_s = datamodule.clip_timeout_s
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self._lock.take()
        except OSError as error:
            raise cannot_write(self.output_dir, error) from error
        run = self._run(trainer, pl_module)
        left = self._look(run, datamodule.batch_size)
        pl_module.provenance = self._run_id = run["run_id"]
        plan = ScanPlan(self.settings.window_s, self.settings.stride_s, left.first, left.only, left.unsteady)
        datamodule.scan = plan
        if left.lines:
            log.info("%d windows have been judged before; going on", len(left.lines))
        if left.failed:
            log.info("%d of the recordings failed; --retry_failed true tries them again", len(left.failed))

    def _run(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        run = describe_run(trainer, pl_module)
        windows = {name: getattr(self.settings, name) for name in ("window_s", "stride_s")}
        run["run_id"] = f"{run['run_id']}-{windows['window_s']:g}-{windows['stride_s']:g}"
        return run | {"scan": windows, **told_files(self.recordings)}

    def _look(self, run: dict[str, Any], batch_size: int) -> Left:
        """What is left to do of the scan that is there.

        Raises:
            ValueError: it is of other recordings alone, by another model, of other windows, or its files have changed.
        """
        curve, events, path = (self.output_dir / name for name in (CURVE, EVENTS, RUN))
        refuse_recordings_in_clips(self.output_dir, [recording.path for recording in self.recordings])
        if self.overwrite:
            self._clear()
        there = read_run(path, OTHERWISE) if curve.exists() else None
        answers = sum(file.stat().st_size for file in prediction_files(self.output_dir))
        if there is None and answers and not self.overwrite:
            raise ValueError(
                f"{self.output_dir} holds predictions of clips, and a scan would write over them; set --output_dir to "
                "another folder, or --overwrite true"
            )
        self.curve = WholeLines(curve, LINE_KEYS, REMEDY)
        if why := refusal(there, run, self.curve.lines):
            raise ValueError(f"{self.output_dir} holds {why}; {OTHERWISE}")
        hash_of = hasher(self.recordings, self._timeout_s)
        changed = changed_files(there or {}, run, hash_of)
        if why := refused_files(changed, self.curve.lines, self.retry_failed):
            raise ValueError(f"{self.output_dir} holds {why}; {OTHERWISE}")
        self.answered = WholeLines(events, ("key", "clip", "prediction"), REMEDY)
        run["files"] = hashed_files(there, run, changed, hash_of)
        if there is not None:
            say_others(there, run)
            self._forget(changed, there)
        run["recordings"] = all_recordings(there, run)
        self._stems = {told[0]: told[3] for told in run["recordings"]}
        write_files({path: json.dumps(run, ensure_ascii=False, indent=1, default=str) + "\n"})
        left = left_of([recording.id for recording in self.recordings], self.curve.lines, batch_size, self.retry_failed)
        if left.lines != self.curve.lines:
            self.curve.keep(left.lines)
        return left

    def _clear(self) -> None:
        """Remove what this program wrote into the folder: a scan, or predictions of clips in all their forms."""
        clear_scan(self.output_dir)
        old = {*parquet.own_shards(self.output_dir), *results_files(self.output_dir, self._event_names)}
        old |= {*prediction_files(self.output_dir), *(self.output_dir / name for name in (CURVE, EVENTS, RUN))}
        for path in old:
            path.unlink(missing_ok=True)

    def _forget(self, changed: Mapping[str, str], there: Mapping[str, Any]) -> None:
        """What was read of files that are others now. That they failed stays, until run.json says what they are."""
        if not changed:
            return
        read = {line["recording"] for line in self.curve.lines}
        for name, what in changed.items():
            if name in read:
                log.warning("a recording has changed, and is scanned again from its beginning (old -> new: %s)", what)
        windows = [line for line in self.curve.lines if line["recording"] not in changed or is_failed(line)]
        self.curve.keep(windows)
        self.answered.keep([line for line in self.answered.lines if line["key"][0] not in changed])
        clear_recordings(self.output_dir, there, changed)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if batch.events_only:
            self._judged(batch, outputs)
        else:
            samples = [*(item.sample for item in batch.failed), *batch.samples]
            for sample, prediction in zip(samples, outputs, strict=True):
                self._answered(sample, prediction)
        if trainer.received_sigterm:
            raise SIGTERMException

    def _judged(self, batch: Any, probabilities: Sequence[dict[str, float] | str]) -> None:
        windows = zip(batch.samples, probabilities, strict=True)
        lines = [curve_line(window, found, self._background) for window, found in windows]
        self.curve.append([*lines, *(failed_line(item.sample, item.reason) for item in batch.failed)])
        for item in batch.failed:
            log.warning("%s failed: %s", item.sample.video, item.reason)
        for window in batch.samples:
            if window.damage is not None:
                log.warning("%s is damaged: %s", window.video, window.damage)
            if window.is_last:
                log.info("%s: %d windows judged, to %.1f s", window.video, window.window + 1, window.end_s)

    def plan_answers(self) -> list[WindowSample]:
        """The windows at the peaks without an answer yet; events of other settings, or without a clip, are dropped."""
        curves, asked_for = by_recording(self.curve.lines), [recording.id for recording in self.recordings]
        lines = in_order(asked_for, curves)
        if lines != self.curve.lines:  # some were judged again, or of recordings that came later
            self.curve.keep(lines)
        events = scan_events(self.recordings, curves, self._stems, self.settings, self._background)
        self._planned = {event.key: event for event in events}
        asked = set(asked_for)
        kept = [
            line for line in self.answered.lines
            if line["key"][0] not in asked  # what is not asked for now may be again
            or (
                tuple(line["key"]) in self._planned
                and (line["clip"] is None or (self.output_dir / CLIPS / line["clip"]).exists())
                and not (self.retry_failed and line["prediction"]["status"] == "failed")
            )
        ]  # fmt: skip
        if kept != self.answered.lines:
            self.answered.keep(kept)
        done = {tuple(line["key"]) for line in kept}
        steady = {name: is_steady(curves.get(name, [])) for name in asked_for}
        left = defaultdict(list)  # two peaks may lie in one window, which is answered once
        for key, event in self._planned.items():
            if key not in done:
                left[event.asked].append(event)
        self._unanswered = dict(left)
        return [
            window_sample(
                event.recording, window=event.window["window"], start_s=event.window["start_s"],
                end_s=event.window["end_s"], is_steady=steady[event.recording.id],
            )
            for event, *_ in left.values()
        ]  # fmt: skip

    def _answered(self, window: WindowSample, prediction: Prediction) -> None:
        """The clip, then the line that says it is there; for each event that is asked by this window."""
        for event in self._unanswered.pop((window.id, window.window), ()):
            path = self.output_dir / CLIPS / event.clip
            line = prediction.to_json_dict() | {"video": event.clip, "path": readable_name(path)}
            clip: str | None = event.clip
            try:
                path.parent.mkdir(exist_ok=True)
                span = event.clip_start_s, event.clip_end_s
                cut_clip(window.path, *span, path, window.is_steady, self._timeout_s)
            except UnreadableClipError as error:  # the recording has gone since its curve was made
                line |= {"status": "failed", "error": prediction.error or error.reason}
                clip = None
            except OSError as error:
                raise cannot_write(path, error) from error
            self.answered.append([{"key": list(event.key), "clip": clip, "prediction": line}])

    def finish(self) -> list[ScanEvent]:
        """Write the tables from the lines; the events."""
        lines = {tuple(line["key"]): line["prediction"] for line in self.answered.lines}
        events = list(self._planned.values())
        answers = [lines[event.key] for event in events]
        curves = by_recording(self.curve.lines)
        answers += [prediction.to_json_dict() for prediction in failures(self.recordings, curves, self._run_id)]
        clear_clips(
            self.output_dir,
            [self._stems[recording.id] for recording in self.recordings],
            {line["clip"] for line in self.answered.lines},
        )
        rows = recording_rows(self.recordings, curves, events)
        if unjudged := [row["recording"] for row in rows if row["windows_without_probability"]]:
            log.warning(
                "%d recordings have windows without a probability: %s; --retry_failed true judges them again",
                len(unjudged), named(unjudged),
            )  # fmt: skip
        write_files(
            {
                self.output_dir / EVENT_TABLE: table(event_rows(events, lines)),
                self.output_dir / RECORDING_TABLE: table(rows),
                self.output_dir / "predictions.jsonl": "".join(
                    f"{json.dumps(line, ensure_ascii=False)}\n" for line in answers
                ),
            }
        )
        draw_curves(self.output_dir, self.recordings, curves, events, self._stems, self.settings)
        return events

    def close(self) -> None:
        """Let go of the files and of the folder, however the scan ended."""
        for file in (self.curve, self.answered):
            if file is not None:
                file.close()
        self._lock.free()
