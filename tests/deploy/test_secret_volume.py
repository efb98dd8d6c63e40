"""Keys are rotated as the kubelet does it, and service links are what they are said to be."""

from loss_scoring.service.api.auth import Keys
from loss_scoring.service.settings import Settings

OLD, NEW = "0123456789abcdef-old", "0123456789abcdef-new"


def write(volume, version, text):
    """Lay out a version of a Secret as a kubelet does: a folder, and one link that moves to it."""
    (volume / version).mkdir()
    (volume / version / "keys").write_text(text)
    (volume / "..data_tmp").symlink_to(version)
    (volume / "..data_tmp").rename(volume / "..data")


def allows(keys, key):
    return keys.holder(f"Bearer {key}".encode()) is not None


def test_a_secret_is_read_again_when_it_changes(tmp_path):
    now = 0.0
    write(tmp_path, "..2026_01_01", f"{OLD}\n")
    (tmp_path / "keys").symlink_to("..data/keys")
    keys = Keys(None, tmp_path / "keys", clock=lambda: now)
    assert (allows(keys, OLD), allows(keys, NEW)) == (True, False)
    write(tmp_path, "..2026_01_02", f"{NEW}\n")
    now = 2.0
    assert (allows(keys, OLD), allows(keys, NEW)) == (False, True)


def test_service_links_are_no_settings(monkeypatch):
    monkeypatch.setenv("LOSS_SCORING_PORT", "tcp://10.96.0.1:8000")
    monkeypatch.setenv("LOSS_SCORING_SERVICE_HOST", "10.96.0.1")
    assert Settings.from_environment().port == Settings.model_fields["port"].default
