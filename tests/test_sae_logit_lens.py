"""Logit lens against the model's own head; facets against counting."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from selection.core.errors import InputError
from selection.sae.interpret import logit_lens as lens_module
from selection.sae.interpret.facets import FacetCounts
from selection.sae.interpret.logit_lens import logit_lens, read_unembedding


def test_the_lens_is_its_definition() -> None:
    g = torch.Generator().manual_seed(0)
    decoder, norm = torch.randn(9, 6, generator=g), torch.rand(6, generator=g) + 0.5
    words = torch.randn(40, 6, generator=g) + 2
    found = logit_lens(decoder, norm, words, n=3)
    for j in range(9):
        logits = [float((decoder[j].double() * norm.double()) @ word.double()) for word in words]
        centered = np.array(logits) - np.mean(logits)
        order = np.argsort(-centered)
        assert found.top[j].tolist() == order[:3].tolist()
        assert found.bottom[j].tolist() == order[::-1][:3].tolist()
        np.testing.assert_allclose(found.top_logits[j], centered[order[:3]], rtol=1e-4)
        np.testing.assert_allclose(found.bottom_logits[j], centered[order[::-1][:3]], rtol=1e-4)
        kurtosis = (centered**4).mean() / (centered**2).mean() ** 2 - 3
        assert float(found.kurtosis[j]) == pytest.approx(kurtosis, rel=1e-3, abs=1e-3)
    with pytest.raises(ValueError, match="widths differ"):
        logit_lens(decoder, None, torch.zeros(4, 5))


def test_latents_in_chunks_have_the_same_lens(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, words = torch.randn(20, 6), torch.randn(30, 6)
    whole = logit_lens(decoder, None, words)
    monkeypatch.setattr(lens_module, "_CHUNK_VALUES", 70)
    parts = logit_lens(decoder, None, words)
    assert torch.equal(whole.top, parts.top)
    torch.testing.assert_close(whole.kurtosis, parts.kurtosis)


def test_the_lens_agrees_with_the_model_that_the_weights_belong_to(tiny_model_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    norm, words = read_unembedding(tiny_model_dir)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    direction = torch.randn(1, words.shape[1], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        # The norm divides by the root mean square: with that taken back, it is the weight alone.
        size = direction.square().mean().sqrt()
        expected = model.lm_head(model.model.norm(direction) * size)[0]
    found = logit_lens(direction, norm, words, n=5)
    centered = expected - expected.mean()
    assert found.top[0].tolist() == centered.topk(5).indices.tolist()
    torch.testing.assert_close(found.top_logits[0], centered.topk(5).values, rtol=1e-3, atol=1e-3)


def test_a_tied_gemma_uses_its_embedding_and_adds_one_to_the_norm(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = {"model.embed_tokens.weight": torch.randn(7, 4), "model.norm.weight": torch.ones(4)}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "gemma3_text"}')
    norm, words = read_unembedding(tmp_path)
    assert norm is not None
    assert norm.tolist() == [2.0] * 4
    assert torch.equal(words, weights["model.embed_tokens.weight"])
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="no unembedding"):
        read_unembedding(tmp_path)


def test_facets_are_counts_of_samples_and_do_not_depend_on_batches() -> None:
    rng = np.random.default_rng(0)
    n_samples, m, k = 60, 8, 3
    labels = [["code", "math", "talk", ""][i % 4] for i in range(n_samples)]
    samples = np.repeat(np.arange(n_samples), 5)
    latents = np.stack([rng.permutation(m - 1)[:k] for _ in samples])
    acts = rng.integers(0, 2, latents.shape).astype(np.float32)
    acts[(latents == 2) & (np.array(labels)[samples] != "math")[:, None]] = 0  # only in math
    active = {(int(s), int(j)) for s, row, values in zip(samples, latents, acts, strict=True)
              for j, value in zip(row, values, strict=True) if value > 0}  # fmt: skip
    whole = FacetCounts(m, labels)
    whole.add(acts, latents, samples)
    parts = FacetCounts(m, labels)
    for start in range(0, len(samples), 50):
        part = slice(start, start + 50)
        parts.add(acts[part], latents[part], samples[part])
    for counts in (whole, parts):
        found = counts.facets(min_samples=3)
        for j in range(m):
            own = Counter(labels[s] for s, latent in active if latent == j)
            total = sum(own.values())
            assert found.n[j] == total
            lifts = {v: (c / total) / (labels.count(v) / n_samples) for v, c in own.items()
                     if v and c >= 3}  # fmt: skip
            if not lifts:
                assert found.label[j] == -1
                continue
            assert found.lift[j] == pytest.approx(max(lifts.values()))
            assert lifts[found.names[found.label[j]]] == pytest.approx(max(lifts.values()))
        assert found.names[found.label[2]] == "math"
        assert found.lift[2] == pytest.approx(4.0)
        assert found.label[m - 1] == -1
