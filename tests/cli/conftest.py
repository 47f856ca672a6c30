import pytest
import tiny

from lit_backdoor.bundle import save_bundle


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIT_BACKDOOR_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture(scope="session")
def victim(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "victim"
    save_bundle(path, kind="suspect", module=tiny.classifier())
    return path


@pytest.fixture(scope="session")
def selection(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "selection"
    chosen = tiny.chain()["data"]["init_args"]
    from lit_backdoor.chain.testing import build_data

    data = build_data({"class_path": "lit_backdoor.data.BackdoorDataModule",
                       "init_args": {"source": tiny.SIGNS, "split": chosen["split"], "seed": 0}})  # fmt: skip
    save_bundle(path, kind="selection", tensors={"indices": data.get_view("questioned").index[:8]})
    return path
