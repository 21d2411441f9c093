"""``hardy push`` and ``hardy pull`` in words."""

import hardy


def test_push_and_pull(call, tmp_path):
    run = hardy.save(hardy.create("tiny", classes="camvid11", width=8), tmp_path / "run")
    there = tmp_path / "there"
    said = call("push", run, there)
    assert (said.code, said.err) == (0, "")
    assert f"hardy pull {there} DIR fetches it" in said.out
    assert "give one, such as --licence" in said.out
    said = call("pull", there, tmp_path / "mine")
    assert (said.code, said.err) == (0, "")
    assert "tiny, camvid11; checksums match" in said.out
    again = call("pull", there, tmp_path / "mine")
    assert again.code == 2
    assert again.err == f"hardy: {tmp_path}/mine: is not empty (it holds README.md); give a new folder\n"
