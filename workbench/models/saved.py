"""Models saved as data, never as code: JSON for what a rung learned, LightGBM's own text for its trees, a card in plain words.

`<folder>/<identity>/`: model.json, trees_<n>.txt, card.md and manifest.json with the SHA-256 of each; the identity is a hash over those. It tells of damage
and mix-ups; it is no signature against somebody who can write there, but nothing in it runs.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from hashlib import sha256
from importlib import import_module, resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd

from workbench.errors import WorkbenchError
from workbench.models.calibration import Interval, Platt
from workbench.models.learners import RUNGS, Terms
from workbench.models.reasons import Scorer, readable
from workbench.models.rungs import kinds

FORMAT = 1


@dataclass
class SavedScorer(Scorer):
    """A scorer read from a folder: refuses rows that lack one of its features (name: number, date or text) or hold one of another kind."""

    features: dict[str, str] = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    identity: str = ""

    def parts(self, X: pd.DataFrame) -> np.ndarray:
        return super().parts(self._known(X))

    def points(self, X: pd.DataFrame) -> tuple[pd.DataFrame, float]:
        return super().points(self._known(X))

    def _known(self, X: pd.DataFrame) -> pd.DataFrame:
        now = _kinds(X)
        if bad := [f"{c} is missing" if c not in now else f"{c} was {kind} and is {now[c]}" for c, kind in self.features.items() if now.get(c) != kind]:
            raise WorkbenchError(f"Model {self.identity} cannot score these rows: {'; '.join(bad[:5])}.", fix="Score with the features that it learned from, or train again.")
        return X[list(self.features)]


def _kinds(X: pd.DataFrame) -> dict[str, str]:
    return {c: "text" for c in X} | {c: "date" if X[c].dtype.kind == "M" else "number" for c in kinds(X)[0]}


def save_model(scorer: Scorer, folder: Path, *, features: pd.DataFrame, facts: dict, card: str) -> Path:
    """Write a model below `folder`; the folder named by its identity. features: any rows that it scores, for names and kinds; facts: of its training.

    A killed process leaves at most a hidden folder that nothing reads."""
    held: dict[str, bytes] = {"card.md": card.encode()}
    told = _encoded({f.name: getattr(scorer, f.name) for f in fields(Scorer)} | {"features": _kinds(features), "facts": facts}, held)
    held["model.json"] = json.dumps(told, allow_nan=False).encode()
    hashes = {name: sha256(data).hexdigest() for name, data in held.items()}
    final, hidden = folder / _identity(hashes), folder / f".{uuid4().hex}"
    if not final.exists():
        hidden.mkdir(parents=True)
        for name, data in (held | {"manifest.json": json.dumps({"format": FORMAT, "files": hashes}, indent=1).encode()}).items():
            (hidden / name).write_bytes(data)
        try:
            hidden.rename(final)
        except OSError:  # another process may have saved the same model meanwhile
            shutil.rmtree(hidden)
    load_model(final)  # or an error, where that folder was damaged since
    return final


def _identity(hashes: dict[str, str]) -> str:
    return sha256(json.dumps([FORMAT, hashes], sort_keys=True).encode()).hexdigest()[:32]


def load_model(path: Path) -> SavedScorer:
    """The model in a folder that `save_model` made; refused when a byte changed or its format is of another time."""
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
        hashes = {str(name): str(told) for name, told in manifest["files"].items()}
        held = {name: (path / Path(name).name).read_bytes() for name in ("model.json", "card.md", *hashes)}
        changed = [name for name, data in held.items() if sha256(data).hexdigest() != hashes.get(name)]
        wrong = (f"{path} has format {manifest['format']!r}, and this workbench reads format {FORMAT}." if manifest["format"] != FORMAT else
                 f"{path / changed[0]} was changed after the model was saved." if changed else
                 f"{path / 'manifest.json'} was changed after the model was saved, or its folder renamed." if path.name != _identity(hashes) else "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = f"{path} is no whole saved model: {type(error).__name__} {error}."
    if wrong:
        raise WorkbenchError(wrong, fix="Take the folder from a backup, or train again.")
    return SavedScorer(**_decoded(json.loads(held["model.json"]), held), identity=path.name)


def _remade(kind: Any, told: dict) -> Any:
    made = kind()
    vars(made).update(told)
    return made


# Type by name: what its values are made of, and how they are made again from that; nothing else is written, or made from a file.
TYPES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "float": (str, float), "int64": (int, int), "bool": (bool, bool), "dict": (lambda v: [[k, x] for k, x in v.items()], dict),
    "ndarray": (lambda v: [v.ravel().tolist(), str(v.dtype), list(v.shape)], lambda p: np.array(p[0], dtype=p[1]).reshape(p[2])),
    "Series": (lambda v: [v.to_numpy(), v.index.to_numpy()], lambda p: pd.Series(p[0], index=p[1])),
    "Booster": (lambda v: v.model_to_string().encode(), lambda p: import_module("lightgbm").Booster(model_str=p.decode())),
    "LogisticRegression": (lambda v: {c: getattr(v, c) for c in ("coef_", "intercept_", "classes_", "n_features_in_")},
                           lambda p: _remade(import_module("sklearn.linear_model").LogisticRegression, p)),
    **{c.__name__: (vars, partial(_remade, c)) for c in (*RUNGS, Terms, Platt, Interval)}}


def _encoded(value: Any, held: dict[str, bytes]) -> Any:
    """`value` as JSON: an object of one key names the type of what JSON does not have, or the file in `held` of bytes."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, list):
        return [_encoded(v, held) for v in value]
    if isinstance(value, bytes):
        held[file := f"trees_{len(held)}.txt"] = value
        return {"file": file}
    kind = "float" if isinstance(value, float) else type(value).__name__
    if kind not in TYPES:
        raise WorkbenchError(f"A model holds a {kind}, which cannot be saved as data.", fix="Teach workbench/models/saved.py to write and read it.")
    return {kind: _encoded(TYPES[kind][0](value), held)}


def _decoded(value: Any, held: dict[str, bytes]) -> Any:
    if isinstance(value, list):
        return [_decoded(v, held) for v in value]
    if not isinstance(value, dict):
        return value
    (kind, told), = value.items()
    return held[told] if kind == "file" else TYPES[kind][1](_decoded(told, held))


def model_card(s) -> tuple[dict, str]:
    """Of what, when and how well the model of LeadScores `s` learned as plain values, and its card as Markdown (card.md; no text from the CRM but field names)."""
    from workbench.models import sentences as say  # lies above: leads may save

    told, chosen = s.spine.frame[s.spine.frame["event"].notna()], s.ladder[s.ladder["chosen"]].iloc[0]
    facts = s.results() | {c: getattr(s.spine, c) for c in ("entity", "source", "horizon_days", "score_at")} | {
        "as_of": str(s.spine.as_of), "trained_n": len(told), "trained_records": int(told["id"].nunique()), "trained_events": int(told["event"].sum()),
        "trained_from": str(told["as_of"].min())[:10], "trained_to": str(told["as_of"].max())[:10]}
    out = dict.fromkeys(s.excluded["field"], "") | {r.field: f" ({r.verdict})" for r in s.suspects.itertuples() if r.verdict != "fine" and not r.used}
    bands = [f"- Band {b.band}: {b.n:,} rows, scored {b.p_mean:.1%} on average; {b.observed:.1%} had the event (95 % interval {b.low:.1%} to {b.high:.1%})." for b in s.bands.itertuples()]
    return facts, resources.files("workbench.models").joinpath("card.md").read_text(encoding="utf-8").format(**facts | chosen.to_dict() | {
        "event": say.event_words(s).replace("converted", "converts", 1).replace("were won", "is won", 1), "source": s.spine.source or "every source",
        "population": "that is open on a day of the calendar grid" if s.spine.score_at == "grid" else "as it stood when it was first seen",
        "features": ", ".join(map(readable, facts["features"])), "assumed": ", ".join(map(readable, facts["assumed"])) or "nothing",
        "kept_out": ", ".join(readable(c) + verdict for c, verdict in out.items()) or "nothing", "base_rate": say.base_rate_sentence(s),
        "verdict": say.verdict_sentence(s), "bands": "\n".join(bands), "calibration": say.calibration_sentence(s), "limits": say.trust_points(s)})
