"""A scan onto disk: the curve as its windows are judged, then the events with their records and clips.

Enters: the probabilities of each batch of windows; then the answers about the windows at the peaks. Leaves in the
output folder: scan_curve.jsonl (a line a window), events.jsonl (a line an event, as it is answered), and at the end
events.csv, recordings.csv, predictions.jsonl (a line a clip, failed recordings included) and a picture of each curve;
clips/.
Must hold: a line is on the disk before the next batch begins; a scan that was stopped at any time goes on where it was,
and ends with the same lines; another model, other windows or other recordings are not mixed in.
"""

import csv
import io
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vlm_crash.callbacks.run_record import describe_run
from vlm_crash.callbacks.scan_events import (
    ScanEvent,
    ScanSettings,
    clip_stems,
    curve_line,
    failed_line,
    is_failed,
    scan_events,
    scored,
)
from vlm_crash.callbacks.scan_image import draw_curve
from vlm_crash.callbacks.whole_lines import WholeLines, cannot_write
from vlm_crash.data.files import write_files
from vlm_crash.data.prediction_lines import prediction_files
from vlm_crash.data.recordings import ScanPlan, WindowSample, window_sample
from vlm_crash.schema.records import Prediction, VideoSample
from vlm_crash.video.clip_files import readable_name
from vlm_crash.video.container import UnreadableClipError
from vlm_crash.video.cutting import cut_clip

log = logging.getLogger(__name__)

CURVE, EVENTS, RUN, CLIPS = "scan_curve.jsonl", "events.jsonl", "run.json", "clips"


class ScanWriter(Callback):
    """Keeps a scan's files.

    Args:
        output_dir: folder for them.
        settings: of the scan.
        overwrite: begin anew where there is a scan already.
    """

    def __init__(self, output_dir: Path, settings: ScanSettings, overwrite: bool = False) -> None:
        self.output_dir, self.settings, self.overwrite = Path(output_dir), settings, overwrite
        self.recordings: list[VideoSample] = []
        self._background = ""
        self._planned: dict[tuple[Any, ...], ScanEvent] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at what is there already, and say which windows are to be read."""
        if self.recordings:  # the second time, for the peaks
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.recordings = list(datamodule.samples["predict"])
        schema: Any = pl_module.schema
        self._background = schema.background.name
        run = self._run(trainer, pl_module)
        self._refuse_another(run)
        pl_module.provenance = run["run_id"]
        self.curve = WholeLines(self.output_dir / CURVE)
        self.answered = WholeLines(self.output_dir / EVENTS)
        write_files({self.output_dir / RUN: json.dumps(run, ensure_ascii=False, indent=1, default=str) + "\n"})
        first = self._first_windows(datamodule.batch_size)
        datamodule.scan = ScanPlan(self.settings.window_s, self.settings.stride_s, first)

    def _run(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        run = describe_run(trainer, pl_module)
        windows = {name: getattr(self.settings, name) for name in ("window_s", "stride_s")}
        run["run_id"] = f"{run['run_id']}-{windows['window_s']:g}-{windows['stride_s']:g}"
        return run | {"scan": windows, "recordings": [self._told(recording) for recording in self.recordings]}

    @staticmethod
    def _told(recording: VideoSample) -> list[Any]:
        size = recording.path.stat().st_size if recording.path.exists() else None
        return [recording.id, readable_name(recording.path), size]

    def _refuse_another(self, run: dict[str, Any]) -> None:
        """ValueError where the folder holds the scan of other recordings, or by another model or other windows."""
        paths = [self.output_dir / name for name in (CURVE, EVENTS, RUN)]
        if self.overwrite:
            for path in paths:
                path.unlink(missing_ok=True)
            return
        there = json.loads(paths[2].read_text(encoding="utf-8")) if paths[2].exists() else None
        if there is None or not paths[0].exists():
            if any(path.stat().st_size for path in prediction_files(self.output_dir)):
                raise ValueError(
                    f"{self.output_dir} holds predictions of clips, and a scan would write over them; set --output_dir "
                    "to another folder, or --overwrite true"
                )
            return
        if there.get("recordings") != run["recordings"]:
            what = "other recordings, or of files that have changed since"
        elif there["run_id"] != run["run_id"]:
            what = "another model, other windows or another way of asking"
        else:
            return
        raise ValueError(
            f"{self.output_dir} holds a scan with {what}; set --output_dir to another folder, or --overwrite true to "
            "begin anew"
        )

    def _first_windows(self, batch_size: int) -> dict[str, int | None]:
        """Where each recording is gone on with; lines of a batch that was torn are judged again, as one batch."""
        kept: list[dict[str, Any]] = []
        first: dict[str, int | None] = {}
        for recording in self.recordings:
            lines = [line for line in self.curve.lines if line["recording"] == recording.id]
            if lines and lines[-1]["is_last"]:
                first[recording.id] = None
            else:
                lines = lines[: len(lines) // batch_size * batch_size]
                first[recording.id] = lines[-1]["window"] + 1 if lines else 0
            kept += lines
        if kept != self.curve.lines:
            self.curve.keep(kept)
        if kept:
            log.info("%d windows have been judged before; going on", len(kept))
        return first

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

    def _judged(self, batch: Any, probabilities: Sequence[dict[str, float] | None]) -> None:
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
        ]  # fmt: skip
        if kept != self.answered.lines:
            self.answered.keep(kept)
        done = {tuple(line["key"]) for line in kept}
        return [
            window_sample(
                event.recording, window=event.window["window"], start_s=event.window["start_s"],
                end_s=event.window["end_s"],
            )
            for key, event in self._planned.items() if key not in done
        ]  # fmt: skip

    def _answered(self, window: WindowSample, prediction: Prediction) -> None:
        """The clip, then the line that says it is there."""
        for event in self._planned.values():
            if (event.recording.id, event.window["window"]) != (window.id, window.window):
                continue
            path = self.output_dir / CLIPS / event.clip
            line = prediction.to_json_dict() | {"video": event.clip, "path": readable_name(path)}
            clip: str | None = event.clip
            try:
                path.parent.mkdir(exist_ok=True)
                cut_clip(window.path, event.clip_start_s, event.clip_end_s, path)
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
        stems = dict(zip(by_id, clip_stems(self.recordings), strict=True))
        for line in failed:
            recording = by_id[line["recording"]]
            answers.append(
                Prediction(
                    recording.video, None, None, {}, {}, "", "failed", line["error"], path=readable_name(recording.path)
                ).to_json_dict()
            )
        write_files(
            {
                self.output_dir / "events.csv": _table(event_rows(events, lines)),
                self.output_dir / "recordings.csv": _table(recording_rows(self.recordings, self.curve.lines, events)),
                self.output_dir / "predictions.jsonl": "".join(
                    f"{json.dumps(line, ensure_ascii=False)}\n" for line in answers
                ),
            }
        )
        for recording in self.recordings:
            curve = [line for line in self.curve.lines if line["recording"] == recording.id and not is_failed(line)]
            if curve:
                peaks = [event.peak for event in events if event.recording.id == recording.id]
                picture = draw_curve(recording.video, scored(curve), peaks, self.settings)
                picture.save(self.output_dir / f"curve_{stems[recording.id]}.png")
        for file in (self.curve, self.answered):
            file.close()
        return events


def event_rows(events: Iterable[ScanEvent], answers: dict[tuple[Any, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of events.csv."""
    return [
        {
            "recording": event.recording.video,
            "event": event.event,
            "start_s": f"{event.peak.start_s:.3f}",
            "end_s": f"{event.peak.end_s:.3f}",
            "peak_s": f"{event.peak.peak_s:.3f}",
            "probability": f"{event.peak.probability:.4f}",
            "window_probability": f"{event.window['probability']:.4f}",
            "answered": answers[event.key]["event"] or "",
            "status": answers[event.key]["status"],
            "clip": event.clip,
            "clip_start_s": f"{event.clip_start_s:.3f}",
            "clip_end_s": f"{event.clip_end_s:.3f}",
            "record": json.dumps(answers[event.key]["fields"], ensure_ascii=False),
        }
        for event in events
    ]


def recording_rows(
    recordings: Iterable[VideoSample], curve: Sequence[dict[str, Any]], events: Sequence[ScanEvent]
) -> list[dict[str, Any]]:
    """The rows of recordings.csv: what was seen of each, and what was wrong with it."""
    rows = []
    for recording in recordings:
        lines = [line for line in curve if line["recording"] == recording.id]
        failed = next((line["error"] for line in lines if is_failed(line)), None)
        windows = [line for line in lines if not is_failed(line)]
        rows.append(
            {
                "recording": recording.video,
                "path": readable_name(recording.path),
                "status": "failed" if failed else "ok",
                "seconds": f"{max((line['end_s'] for line in windows), default=0.0):.3f}",
                "windows": len(windows),
                "windows_without_probability": sum(line["probability"] is None for line in windows),
                "events": sum(event.recording.id == recording.id for event in events),
                "problem": failed or next((line["damage"] for line in windows if line["damage"]), ""),
            }
        )
    return rows


_EVENT_COLUMNS = (
    "recording", "event", "start_s", "end_s", "peak_s", "probability", "window_probability", "answered", "status",
    "clip", "clip_start_s", "clip_end_s", "record",
)  # fmt: skip


def _table(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else list(_EVENT_COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
