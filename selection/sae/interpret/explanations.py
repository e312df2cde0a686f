"""Explanations of latents that others wrote: delphi's folders and Neuronpedia's exports.

Nothing in them is trusted: a text becomes one line of bounded length without secrets. delphi (arXiv
2410.13928) writes `explanations/<module>_latent<number>.txt`, a JSON text, and `scores/<scorer>/`
with files of the same names. Neuronpedia's lines have modelId, layer, index, description,
explanationModelName and perhaps scores; in `explanation-scores` they are nested in `explanations`.
"""

import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selection.core.errors import InputError
from selection.core.json_text import parsed
from selection.core.redaction import without_secrets
from selection.models.hookpoints import Hookpoint, hookpoint_of

MOST_CHARACTERS = 200
_MOST_BYTES = 1 << 24  # of a line; one with an embedding has about 6,000
_SCORERS = ("detection", "fuzz")  # of delphi; where both scored a latent, the first one is kept
_PREFERRED = ("recall", "detection", "fuzz")  # parts of the names of Neuronpedia's scores
_SITES = {
    "res": ("resid",),
    "mlp": ("mlp", "mlp_in", "mlp_norm", "mlp_hidden", "resid_mid"),
    "transcoder": ("mlp", "mlp_in", "mlp_norm", "resid_mid"),
    "att": ("attn", "heads"),
}  # word of a Neuronpedia layer such as 12-gemmascope-res-16k -> sites that it may mean
_ENTERS = {("gpt2-small", "res-jb")}  # sets that are numbered by the block that the stream enters


@dataclass(frozen=True, slots=True)
class Dictionary:
    """What explanations must be of. hookpoints: as the config and as the SAE itself name it."""

    hookpoints: Sequence[Hookpoint]
    num_latents: int

    def reads(self, block: int, sites: Sequence[str]) -> bool:
        """Whether a hookpoint is one of the sites, if any are named, of this block.

        A module's output counts as what it adds to the stream.
        """
        bare = [(each.block, each.site.removesuffix("_module")) for each in self.hookpoints]
        return any(at == block and (not sites or site in sites) for at, site in bare)

    def number(self, value: object, file: Path, line: int | None, name: str) -> int:
        """The latent of this number. Raises InputError where there is none."""
        if re.fullmatch(r"[0-9]{1,9}", str(value)) and int(str(value)) < self.num_latents:
            return int(str(value))
        raise _other("the SAE has no such latent", file, line, name, value)


@dataclass(frozen=True, slots=True)
class Explanation:
    """One latent in somebody's words. score: by `scorer`; both None where nobody scored it."""

    text: str
    explainer: str | None = None
    scorer: str | None = None
    score: float | None = None

    def words(self, source: str) -> str:
        """For people: `"dates in news" (delphi, detection 0.83)`."""
        scored = None if self.score is None else f"{self.scorer} {self.score:.2f}"
        return f'"{self.text}" ({", ".join(filter(None, (source, self.explainer, scored)))})'


@dataclass(frozen=True, slots=True)
class Explanations:
    """What was read. source: delphi or neuronpedia; left_out: what was not read -> how often."""

    source: str
    of_latent: dict[int, Explanation] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(self, latent: int, new: Explanation) -> None:
        """Take one in; of several of a latent the best scored stays, else the first."""
        old = self.of_latent.get(latent)
        if not new.text:
            self.left_out["explanations without text"] += 1
            return
        if old is not None:
            self.left_out["other explanations of the same latents"] += 1
        if old is None or (new.score or 0) > (old.score or 0):
            self.of_latent[latent] = new


def read_explanations(path: Path, sae: Dictionary) -> Explanations:
    """Explanations of an SAE's latents from a folder of delphi, or files of Neuronpedia.

    path: a results folder of delphi or its `explanations`; or a file `.jsonl` or `.jsonl.gz`, or a
    folder of these. Raises InputError for what is damaged, of another hookpoint or width, and
    where nothing is left.
    """
    inner = path / "explanations"
    folder = inner if inner.is_dir() else path
    texts = sorted(folder.glob("*.txt"))
    lines = [path] if path.is_file() else sorted(folder.glob("*.jsonl*"))
    read = _delphi(texts, folder.parent / "scores", sae) if texts else _neuronpedia(lines, sae)
    if not read.of_latent:
        counts = ", ".join(f"{n:,} {what}" for what, n in read.left_out.items())
        raise InputError(
            f"no explanations are here{f': {counts}' if counts else ''}",
            file=path,
            remedy="Name a results folder of delphi, which has `explanations/*.txt`, or a file or"
            " the folder `explanations` of Neuronpedia's export (`.jsonl`, `.jsonl.gz`).",
        )
    return read


def _delphi(files: Sequence[Path], scores: Path, sae: Dictionary) -> Explanations:
    read, latents, others = Explanations("delphi"), dict[str, int](), list[tuple[Path, str]]()
    for file in files:
        module, mark, number = file.stem.rpartition("_latent")
        at = hookpoint_of(module.replace("--", "/"))
        if not mark:
            read.left_out["files without a latent in their names"] += 1
        elif at is None or not sae.reads(at.block, [at.site.removesuffix("_module")]):
            others.append((file, module))
        else:
            latents[file.stem] = latent = sae.number(number, file, None, "latent")
            text = _json(file.read_bytes(), file, 1)
            if not isinstance(text, str):
                raise _broken("an explanation is a JSON text", file, 1, text)
            read.add(latent, Explanation(_clean(text, MOST_CHARACTERS)))
    if others and not latents:
        raise _elsewhere(sae, others[0][0], None, "module", others[0][1])
    if others:
        read.left_out["explanations at other hookpoints"] += len(others)
    _add_scores(read, latents, scores)
    return read


def _add_scores(read: Explanations, latents: Mapping[str, int], scores: Path) -> None:
    """latents: name of a file without its ending -> the latent."""
    for file in sorted(scores.glob("*/*.txt")):
        scorer, latent = file.parent.name, latents.get(file.stem, -1)
        known = read.of_latent.get(latent)
        if scorer not in _SCORERS:
            read.left_out[f"scores of {_clean(scorer, 60)}"] += 1
        elif known is None:
            read.left_out["scores without an explanation here"] += 1
        elif known.score is None:
            score = balanced_accuracy(_json(file.read_bytes(), file, 1))
            if score is None:
                read.left_out[f"scores of {scorer} without judgements of both kinds"] += 1
            else:
                read.of_latent[latent] = replace(known, scorer=scorer, score=score)


def balanced_accuracy(judged: object) -> float | None:
    """Mean share of active and of silent examples that were judged rightly; None without either.

    judged: what delphi's detection and fuzzing scorers write: objects with `activating` and
    `prediction`. Examples without a prediction do not count. Chance is 0.5.
    """
    right: dict[bool, list[bool]] = {True: [], False: []}
    for each in judged if isinstance(judged, list) else ():
        if isinstance(each, dict) and each.get("prediction") in (0, 1):  # or false, true
            active = bool(each.get("activating"))
            right[active].append(bool(each["prediction"]) is active)
    if not all(right.values()):
        return None
    return sum(sum(each) / len(each) for each in right.values()) / 2


def _neuronpedia(files: Sequence[Path], sae: Dictionary) -> Explanations:
    read, first = Explanations("neuronpedia"), None
    for file in files:
        for line, text in _lines(file):
            row = _json(text, file, line)
            if not isinstance(row, dict):
                raise _broken("a line is a JSON object", file, line, row)
            model, layer = origin = row.get("modelId"), row.get("layer")
            if first is None:
                _check_layer(sae, str(model), str(layer), file, line)
            if origin != (first := first or origin):
                raise _elsewhere(sae, file, line, "layer", f"{model}/{layer}")
            latent = sae.number(row.get("index"), file, line, "index")
            nested = row.get("explanations", [row])
            for each in nested if isinstance(nested, list) else [nested]:
                described = each.get("description") if isinstance(each, dict) else nested
                if not isinstance(described, str | None):
                    raise _broken("a description is a text", file, line, described)
                explainer = _clean(each.get("explanationModelName") or "", 60) or None
                shown, scored = _clean(described or "", MOST_CHARACTERS), _best(each.get("scores"))
                read.add(latent, Explanation(shown, explainer, *scored))
    return read


def _check_layer(sae: Dictionary, model: str, layer: str, file: Path, line: int) -> None:
    """Raise InputError unless a layer such as 12-gemmascope-res-16k may be the dictionary's."""
    number, _, name = layer.partition("-")
    words = re.split(r"[-_]", name)
    sites = [site for word in words for site in _SITES.get(word, ())]
    block = int(number) - ((model, name) in _ENTERS) if re.fullmatch("[0-9]{1,4}", number) else -1
    if not sae.reads(block, sites):
        raise _elsewhere(sae, file, line, "layer", f"{model}/{layer}")
    for size in [int(word[:-1]) for word in words if re.fullmatch("[0-9]{1,5}k", word)]:
        if not 0.97 < sae.num_latents / max(1, size * 1000) < 1.06:  # 16k latents are 16,384
            problem = f"the SAE has {sae.num_latents:,} latents"
            raise _other(problem, file, line, "layer", f"{model}/{layer}")


def _best(scores: object) -> tuple[str | None, float | None]:
    """The first score of the first kind of _PREFERRED that is there, else the first."""
    known = [
        (_clean(each["explanationScoreTypeName"], 60), float(each["value"]))
        for each in (scores if isinstance(scores, list) else ())
        if isinstance(each, dict)
        and isinstance(each.get("explanationScoreTypeName"), str)
        and isinstance(each.get("value"), int | float)
        and math.isfinite(each["value"])
    ]
    order = {name: [kind not in name for kind in _PREFERRED] for name, _ in known}
    return min(known, key=lambda each: order[each[0]], default=(None, None))


def _clean(text: object, most: int) -> str:
    """One line of bounded length that can be stored, without secrets."""
    flat = " ".join(without_secrets(str(text)).split()).encode("utf-8", "replace").decode()
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not empty, with their numbers. Raises InputError for a damaged file."""
    number, opened = 0, gzip.open if file.suffix == ".gz" else open
    try:
        with opened(file, "rb") as stream:
            while text := stream.readline(_MOST_BYTES + 1):
                number += 1
                if len(text) > _MOST_BYTES:
                    raise _broken(f"a line is longer than {_MOST_BYTES:,} bytes", file, number)
                if text.strip():
                    yield number, text
    except (OSError, EOFError, zlib.error) as error:
        raise _broken(f"the file cannot be read ({error})", file, number + 1) from None


def _json(text: bytes, file: Path, line: int) -> Any:
    try:
        return parsed(text)
    except ValueError:
        shown = text[:80].decode("utf-8", "replace")
        raise _broken("this is not JSON", file, line, shown) from None


def _broken(problem: str, file: Path, line: int, value: object = None) -> InputError:
    remedy = "Nothing was imported. Take the explanations out of their source again."
    return InputError(problem, file=file, line=line, value=value, remedy=remedy)


def _elsewhere(
    sae: Dictionary, file: Path, line: int | None, name: str, value: object
) -> InputError:
    return _other(f"the SAE reads {sae.hookpoints[0]}", file, line, name, value)


def _other(problem: str, file: Path, line: int | None, name: str, value: object) -> InputError:
    remedy = "These explanations are of another SAE: name theirs in the config, or import others."
    return InputError(problem, file=file, line=line, field=name, value=value, remedy=remedy)
