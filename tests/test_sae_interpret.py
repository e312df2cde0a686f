"""Descriptions of latents: sums against a slow definition, and a file that knows its SAE."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from selection.activations.model import load_activation_model
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import resolve_model
from selection.rendering.renderer import load_renderer
from selection.sae.formats.load import load_sae
from selection.sae.interpret.describe import describe, description_rows, profile_latents
from selection.sae.interpret.latents_file import FILE, read_about, read_descriptions, write_latents
from selection.sae.interpret.statistics import LatentStatistics

M, VOCAB, K, DEMO = 7, 11, 3, Path(__file__).parents[1] / "flows" / "demo"


def test_profile_is_its_definition_and_does_not_depend_on_batches() -> None:
    rng = np.random.default_rng(0)
    t = 200
    acts = (rng.integers(0, 4, (t, K)) / 2).astype(np.float32)
    latents = np.stack([rng.permutation(M - 1)[:K] for _ in range(t)])  # the last never fires
    tokens, samples = rng.integers(0, VOCAB, t), np.arange(t) // 10
    positions = np.arange(t) % 10
    mass: defaultdict[tuple[int, int], float] = defaultdict(float)
    peaks: defaultdict[int, dict[int, tuple[float, int]]] = defaultdict(dict)
    fired = np.zeros(M)
    for i in range(t):
        for latent, act in zip(latents[i].tolist(), acts[i].tolist(), strict=True):
            if act > 0:
                fired[latent] += 1
                mass[latent, int(tokens[i])] += act
                if act > peaks[latent].get(int(samples[i]), (0.0, -1))[0]:
                    peaks[latent][int(samples[i])] = (act, int(positions[i]))
    base = np.bincount(tokens, minlength=VOCAB) / t
    for size in (t, 10, 70):
        found = LatentStatistics(M, VOCAB, n_examples=2)
        for start in range(0, t, size):
            part = slice(start, start + size)
            found.add(acts[part], latents[part], tokens[part], samples[part], positions[part])
        profile = found.profile(n_top=4)
        assert profile.n_tokens == t
        assert profile.density == pytest.approx(fired / t)
        for latent in range(M - 1):
            own = {token: m for (f, token), m in mass.items() if f == latent}
            top = sorted(own, key=lambda token: (-own[token], token))[:4]
            whole = sum(own.values())
            assert profile.tokens[latent].tolist() == top
            assert profile.token_share[latent] == pytest.approx([own[x] / whole for x in top])
            lifts = [own[x] / whole / base[x] for x in top]
            assert profile.token_lift[latent] == pytest.approx(lifts)
            best = sorted(peaks[latent], key=lambda sample: (-peaks[latent][sample][0], sample))[:2]
            assert profile.samples[latent].tolist() == best
            assert profile.acts[latent].tolist() == [peaks[latent][x][0] for x in best]
            assert profile.positions[latent].tolist() == [peaks[latent][x][1] for x in best]
            assert profile.max_act[latent] == peaks[latent][best[0]][0]
        assert profile.tokens[M - 1].tolist() == [-1] * 4
        assert profile.samples[M - 1].tolist() == [-1] * 2


def test_examples_quote_the_token_on_which_the_latent_is_strongest(
    tiny_model_dir: Path, tiny_sae_dir: Path
) -> None:
    renderer = load_renderer(tiny_model_dir, max_length=64)
    chats = [
        [{"role": "user", "content": f"Add {i} and 3."}, {"role": "assistant", "content": str(i)}]
        for i in range(6)
    ]
    samples = renderer.render_batch([(chat, None) for chat in chats])
    model = load_activation_model(resolve_model(tiny_model_dir), Hookpoint("resid", 2))
    coder = load_sae(tiny_sae_dir)
    profile, _ = profile_latents(samples, model, coder, tokens_per_batch=60)
    rows = description_rows(profile, samples, [f"s{i}" for i in range(6)], renderer)
    assert [row["latent"] for row in rows] == np.flatnonzero(profile.density).tolist()
    for row in rows:
        first = row["examples"][0]  # type: ignore[index]
        spoken = samples[int(first["example"][1:])]
        text = renderer.decode(spoken.tokens[spoken.content_mask])
        assert first["before"] + first["token"] + first["after"] in text
        assert f"[{first['token']}]" in str(row["description"])


def test_a_description_prefers_lifted_tokens_and_is_one_line() -> None:
    tokens = [
        {"token": " the", "share": 0.5, "lift": 1.1},
        {"token": "\n", "share": 0.3, "lift": 9.0},
    ]
    peak = {"before": "a\n", "token": "b", "after": "c", "act": 1.0}
    assert describe(tokens, [peak]) == "“⏎”, as in …a⏎[b]c…"
    assert describe(tokens[:1], []) == "“ the”"


def test_a_file_of_other_weights_is_not_shown(tmp_path: Path) -> None:
    row = {
        "latent": 3,
        "description": "x",
        "density": 0.5,
        "max_act": 1.0,
        "tokens": [{"token": "x", "share": 1.0, "lift": 2.0}],
        "examples": [],
    }
    assert read_descriptions(tmp_path, "abc") == {}
    write_latents(tmp_path / FILE, [row], {"sae_sha256": "abc", "n_tokens": 7})
    assert read_descriptions(tmp_path, "abc") == {3: "x"}
    assert read_descriptions(tmp_path, "other") == {}
    assert read_about(tmp_path / FILE)["n_tokens"] == 7


def test_the_packaged_sae_is_described() -> None:
    """`python -m benchmarks.demo.describe_latents` makes the file again."""
    coder = load_sae(DEMO / "sae")
    folder = Path(coder.info.path)
    described = read_descriptions(folder, coder.info.sha256)
    assert len(described) > 0.5 * coder.info.num_latents
    assert all(described.values())
    assert (folder / FILE).stat().st_size < 600_000
