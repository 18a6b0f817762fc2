"""Model names: what the catalogue offers, and what a name on the hub looks like."""

from pathlib import Path

import pytest

from marginal.errors import ConfigurationError, ModelNotFetched
from marginal.models.catalogue import BundledFile, HubFile, hub_file, models, pair
from marginal.models.fetch import resolve


def test_every_pair_names_two_models_of_the_catalogue() -> None:
    for name in ("home", "qwen2.5-coder"):
        assert {pair(name).small, pair(name).large} <= set(models())


def test_the_home_pair_ships_with_the_package() -> None:
    for name in (pair("home").small, pair("home").large):
        source = models()[name]
        assert isinstance(source, BundledFile)
        assert resolve(name) == source.path


def test_a_model_of_the_catalogue_that_is_on_the_hub_has_a_name_that_reads_back() -> None:
    for source in models().values():
        if isinstance(source, HubFile):
            read = hub_file(source.name)
            assert (read.repository, read.revision, read.file, read.sha256) == (
                source.repository,
                source.revision,
                source.file,
                source.sha256,
            )
            assert len(source.revision) == 40


def test_an_unknown_pair_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"known are home, qwen2\.5-coder"):
        pair("office")


@pytest.mark.parametrize(
    "name",
    [
        "hub:owner/repo/file.gguf",
        "hub:owner/repo@main/file.gguf",
        "hub:owner/repo@main/file.gguf#1234",
        f"hub:owner@main/file.gguf#{'0' * 64}",
        f"hub:owner/repo@main/file.bin#{'0' * 64}",
        f"hub:owner/repo@main/file.gguf#{'G' * 64}",
    ],
)
def test_a_hub_name_without_all_its_parts_is_refused_and_told_how_it_looks(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"hub:owner/repo@revision/file\.gguf#sha256"):
        resolve(name)


def test_a_path_that_is_there_is_the_model(tmp_path: Path) -> None:
    file = tmp_path / "any.gguf"
    file.write_bytes(b"GGUF")
    assert resolve(str(file)) == file


def test_a_path_that_is_not_there_is_no_model_and_the_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFetched, match="home-small, home-large"):
        resolve(str(tmp_path / "none.gguf"))
