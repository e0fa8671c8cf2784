"""A scan onto disk: the curve as its windows are judged, then the events with their records and clips.

Enters: the probabilities of each batch of windows; then the answers about the windows at the peaks. Leaves in the
output folder: scan_curve.jsonl (a line a window), events.jsonl (a line an event, as it is answered), and at the end
events.csv, recordings.csv, predictions.jsonl (a line a clip, failed recordings included) and a picture of each curve;
clips/.
Must hold: a line is on the disk before the next batch begins; a scan that was stopped at any time goes on where it was,
and ends with the same lines; another model, other windows or other recordings are not mixed in.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vlm_crash.callbacks.folder_lock import FolderLock
from vlm_crash.callbacks.run_record import describe_run
from vlm_crash.callbacks.scan_events import (
    ScanEvent,
    ScanSettings,
    curve_line,
    failed_line,
    is_failed,
    scan_events,
    scored,
)
from vlm_crash.callbacks.scan_files import (
    CLIPS,
    CURVE,
    EVENT_TABLE,
    EVENTS,
    RECORDING_TABLE,
    RUN,
    clear_clips,
    clear_scan,
    clip_stems,
    curve_picture,
    refuse_recordings_in_clips,
)
from vlm_crash.callbacks.scan_image import draw_curve
from vlm_crash.callbacks.scan_resume import Left, changed_files, is_steady, left_of, refusal
from vlm_crash.callbacks.scan_tables import event_rows, recording_rows, table
from vlm_crash.callbacks.whole_lines import WholeLines, cannot_write
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
        retry_failed: read recordings on that failed, and answer again where that failed.
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
        self._planned: dict[tuple[Any, ...], ScanEvent] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at what is there already, and say which windows are to be read."""
        if self.recordings:  # the second time, for the peaks
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.recordings = list(datamodule.samples["predict"])
        schema: Any = pl_module.schema
        self._background = schema.background.name
        self._timeout_s = datamodule.clip_timeout_s
        try:
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self._lock.take()
        except OSError as error:
            raise cannot_write(self.output_dir, error) from error
        run = self._run(trainer, pl_module)
        left = self._look(run, datamodule.batch_size)
        pl_module.provenance = self._run_id = run["run_id"]
        datamodule.scan = ScanPlan(self.settings.window_s, self.settings.stride_s, left.first, left.unsteady)
        if left.lines:
            log.info("%d windows have been judged before; going on", len(left.lines))
        if left.failed:
            log.info("%d of the recordings failed; --retry_failed true tries them again", len(left.failed))

    def _run(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        run = describe_run(trainer, pl_module)
        windows = {name: getattr(self.settings, name) for name in ("window_s", "stride_s")}
        run["run_id"] = f"{run['run_id']}-{windows['window_s']:g}-{windows['stride_s']:g}"
        return run | {"scan": windows, "recordings": [self._told(recording) for recording in self.recordings]}

    @staticmethod
    def _told(recording: VideoSample) -> list[Any]:
        size = recording.path.stat().st_size if recording.path.exists() else None
        return [recording.id, readable_name(recording.path), size]

    def _look(self, run: dict[str, Any], batch_size: int) -> Left:
        """What is left to do of the scan that is there.

        Raises:
            ValueError: it is of other recordings, by another model or of other windows.
        """
        curve, events, path = (self.output_dir / name for name in (CURVE, EVENTS, RUN))
        refuse_recordings_in_clips(self.output_dir, [recording.path for recording in self.recordings])
        if self.overwrite:
            clear_scan(self.output_dir)
            for old in prediction_files(self.output_dir):
                old.unlink()
            for old in (curve, events, path):
                old.unlink(missing_ok=True)
        there = json.loads(path.read_text(encoding="utf-8")) if path.exists() and curve.exists() else None
        answers = sum(file.stat().st_size for file in prediction_files(self.output_dir))
        if there is None and answers and not self.overwrite:
            raise ValueError(
                f"{self.output_dir} holds predictions of clips, and a scan would write over them; set --output_dir to "
                "another folder, or --overwrite true"
            )
        self.curve = WholeLines(curve)
        failed = {line["recording"] for line in self.curve.lines if is_failed(line)}
        if there is not None and (why := refusal(there, run, failed, self.retry_failed)):
            raise ValueError(
                f"{self.output_dir} holds {why}; set --output_dir to another folder, or --overwrite true to begin anew"
            )
        self.answered = WholeLines(events)
        self._forget(changed_files(there, run) if there is not None else None)
        write_files({path: json.dumps(run, ensure_ascii=False, indent=1, default=str) + "\n"})
        left = left_of([recording.id for recording in self.recordings], self.curve.lines, batch_size, self.retry_failed)
        if left.lines != self.curve.lines:
            self.curve.keep(left.lines)
        return left

    def _forget(self, changed: set[str] | None) -> None:
        """What was read of files that are others now. That they failed stays, until run.json says what they are."""
        if changed:
            windows = [line for line in self.curve.lines if line["recording"] not in changed or is_failed(line)]
            self.curve.keep(windows)
            self.answered.keep([line for line in self.answered.lines if line["key"][0] not in changed])

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
        events = scan_events(self.recordings, self.curve.lines, self.settings, self._background)
        self._planned = {event.key: event for event in events}
        kept = [
            line for line in self.answered.lines
            if tuple(line["key"]) in self._planned
            and (line["clip"] is None or (self.output_dir / CLIPS / line["clip"]).exists())
            and not (self.retry_failed and line["prediction"]["status"] == "failed")
        ]  # fmt: skip
        if kept != self.answered.lines:
            self.answered.keep(kept)
        done = {tuple(line["key"]) for line in kept}
        steady = {recording.id: is_steady(self._lines_of(recording)) for recording in self.recordings}
        windows = {
            event.asked: window_sample(
                event.recording, window=event.window["window"], start_s=event.window["start_s"],
                end_s=event.window["end_s"], is_steady=steady[event.recording.id],
            )
            for key, event in self._planned.items() if key not in done
        }  # fmt: skip
        return list(windows.values())  # two peaks may lie in one window, which is answered once

    def _lines_of(self, recording: VideoSample) -> list[dict[str, Any]]:
        return [line for line in self.curve.lines if line["recording"] == recording.id]

    def _answered(self, window: WindowSample, prediction: Prediction) -> None:
        """The clip, then the line that says it is there; for each event that is asked by this window."""
        there = {tuple(line["key"]) for line in self.answered.lines}
        for event in self._planned.values():
            if event.asked != (window.id, window.window) or event.key in there:
                continue
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
        failed = [line for line in self.curve.lines if is_failed(line)]
        by_id = {recording.id: recording for recording in self.recordings}
        stems = dict(zip(by_id, clip_stems([recording.video for recording in self.recordings]), strict=True))
        for line in failed:
            recording = by_id[line["recording"]]
            prediction = Prediction(
                recording.video, None, None, {}, {}, "", "failed", line["error"], provenance=self._run_id,
                path=readable_name(recording.path),
            )  # fmt: skip
            answers.append(prediction.to_json_dict())
        kept = {line["clip"] for line in self.answered.lines}
        clear_clips(self.output_dir, stems.values(), kept)
        write_files(
            {
                self.output_dir / EVENT_TABLE: table(event_rows(events, lines)),
                self.output_dir / RECORDING_TABLE: table(recording_rows(self.recordings, self.curve.lines, events)),
                self.output_dir / "predictions.jsonl": "".join(
                    f"{json.dumps(line, ensure_ascii=False)}\n" for line in answers
                ),
            }
        )
        for recording in self.recordings:
            if curve := [line for line in self._lines_of(recording) if not is_failed(line)]:
                peaks = [event.peak for event in events if event.recording.id == recording.id]
                picture = draw_curve(recording.video, scored(curve), peaks, self.settings)
                picture.save(self.output_dir / curve_picture(stems[recording.id]))
        return events

    def close(self) -> None:
        """Let go of the files and of the folder, however the scan ended."""
        for file in (self.curve, self.answered):
            if file is not None:
                file.close()
        self._lock.free()
