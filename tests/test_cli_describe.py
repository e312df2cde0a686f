"""`saelect describe` on the tiny model: the file, its facets and lens, and the catalog's hints."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from flows.cli.saes import describe_from_config, import_from_config
from flows.config.jobs import VectorJob
from flows.stages.describe import describe_latents
from selection.core.errors import InputError
from selection.sae.formats.load import load_sae
from selection.sae.interpret.latents_file import SCHEMA, read_about, read_descriptions
from storage.files.workspace import EXPLANATIONS, open_workspace
from tests.tiny_model import TINY_N_LATENTS


def job(pool: Path, model: Path, sae: Any) -> dict[str, Any]:
    return {
        "pool": {"path": str(pool), "columns": {"id": "id", "source": "source"}},
        "model": {"name": str(model), "hookpoint": "resid@2"},
        "sae": sae if isinstance(sae, dict) else {"path": str(sae)},
        "rendering": {"max_length": 128},
        "compute": {"tokens_per_batch": 512},
    }


def test_latents_are_described_on_the_pool_and_kept_for_the_catalog(
    tiny_pool_path: Path, tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = job(tiny_pool_path, tiny_model_dir, tiny_sae_dir)
    workspace = open_workspace(tmp_path / "w")
    file = describe_latents(VectorJob.model_validate(config), workspace, 50)
    info = load_sae(tiny_sae_dir).info
    assert file.parent == workspace.described(info.sae_id)
    assert read_about(file)["sae_sha256"] == info.sha256
    table = pq.read_table(file)
    assert table.schema.remove_metadata().equals(SCHEMA)
    rows = table.to_pylist()
    assert 0 < len(rows) <= TINY_N_LATENTS
    sources = {"arithmetic", "translation", "code", "sentiment"}
    for row in rows:
        assert len(row["promotes"]) == len(row["suppresses"]) == 8
        assert {facet["column"] for facet in row["facets"]} <= {"source"}
        assert {facet["label"] for facet in row["facets"]} <= sources
        assert all(0 < facet["share"] <= 1 and facet["lift"] > 0 for facet in row["facets"])
        for facet in row["facets"]:
            told = f"{facet['lift']:.1f}x in {facet['label']}" in row["description"]
            assert told is (facet["lift"] >= 2)
    assert read_descriptions(file.parent, info.sha256)[rows[0]["latent"]] == rows[0]["description"]
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    describe_from_config(str(path), tmp_path / "w", 50, [rows[0]["latent"]])
    shown = capsys.readouterr().out
    assert f"latent {rows[0]['latent']}  on" in shown
    assert "kurtosis" in shown
    with pytest.raises(InputError, match="fired on none"):  # one sample is not enough for all
        describe_from_config(str(path), tmp_path / "w", 1, range(TINY_N_LATENTS))
    for latent in (TINY_N_LATENTS, -1):
        with pytest.raises(InputError, match=rf"no such latent.*0 to {TINY_N_LATENTS - 1}"):
            describe_from_config(str(path), tmp_path / "w", 50, [latent])


def test_explanations_by_others_are_kept_for_the_saes_hash_and_shown(
    tiny_pool_path: Path, tiny_model_dir: Path, tiny_sae_dir: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, root = tmp_path / "c.yaml", tmp_path / "w"
    path.write_text(yaml.safe_dump(job(tiny_pool_path, tiny_model_dir, tiny_sae_dir)))
    folder = tmp_path / "explanations"
    folder.mkdir()
    for latent in range(TINY_N_LATENTS):
        (folder / f"layers.2_latent{latent}.txt").write_text(f'"about {latent}"')
    import_from_config(str(path), root, folder, {"--delphi": None})
    shown = capsys.readouterr().out
    assert f"{TINY_N_LATENTS} latents explained by delphi, 0 with a score." in shown
    assert 'latent 3  "about 3" (delphi)' in shown
    info = load_sae(tiny_sae_dir).info
    table = pq.read_table(open_workspace(root).described(info.sae_id) / EXPLANATIONS)
    assert table["sae"].unique().to_pylist() == [info.sha256]
    describe_from_config(str(path), root, 50, [])
    assert '    "about ' in capsys.readouterr().out
    (folder / f"layers.2_latent{TINY_N_LATENTS}.txt").write_text('"beyond"')
    with pytest.raises(InputError, match=f"latent{TINY_N_LATENTS}.txt: `latent`"):
        import_from_config(str(path), root, folder, {})
    with pytest.raises(InputError, match=r"--delphi.*does not go with --import"):
        import_from_config(str(path), root, folder, {"--delphi": tmp_path})


def test_an_sae_that_is_not_trained_yet_cannot_be_described(
    tiny_pool_path: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    config = job(tiny_pool_path, tiny_model_dir, {"train": {"num_latents": 64, "k": 4}})
    with pytest.raises(InputError, match="train-sae CONFIG"):
        describe_latents(VectorJob.model_validate(config), open_workspace(tmp_path), 5)
