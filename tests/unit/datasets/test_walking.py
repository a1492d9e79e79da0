"""One walk of a folder: what counts, what counts once, what is said of the rest, and when a listing changes."""

import gzip
import os
import time

import pytest

from dinodp.datasets.walking import copies, counted, files_in, folders_in, listing, require_folder, walk
from dinodp.errors import InputError
from dinodp.jobs.files import FOLDER_LOCK, RECORD


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def names(root, **how):
    return [path.relative_to(root).as_posix() for path in walk(root, **how).files]


HIDDEN = [
    ".ipynb_checkpoints/a.png", ".git/annex/objects/a.png", ".Trash-1000/files/a.png", "._a.png", ".DS_Store",
    "Thumbs.db", "thumbs.DB", "desktop.ini", "__MACOSX/a.png", "sub/__MACOSX/._a.png", "sub/.hidden.png",
    "@eaDir/a.png", "part.0123abcd-77-89abcdef.a.png",
]  # fmt: skip


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_files_and_litter_are_passed_over(tmp_path, name):
    write(tmp_path / "a.png")
    write(tmp_path / name, "y")
    found = walk(tmp_path)
    assert [path.name for path in found.files] == ["a.png"]
    assert found.left_in_words() == ""


@pytest.mark.parametrize("name", ["department.a.png", "part.png", "a.b.png", "__a.png"])
def test_names_that_only_look_like_it_count(tmp_path, name):
    write(tmp_path / name)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("root", [".cache", "__MACOSX", ".a/.b"])
def test_the_root_and_what_is_above_it_may_be_hidden(tmp_path, root):
    write(tmp_path / root / "sub/a.png")
    assert names(tmp_path / root) == ["sub/a.png"]


def test_files_are_sorted_and_found_at_any_depth(tmp_path):
    for name in ("b/c/d/e/z.png", "a.png", "b/y.png"):
        write(tmp_path / name)
    assert names(tmp_path) == ["a.png", "b/c/d/e/z.png", "b/y.png"]
    assert names(tmp_path, deep=False) == ["a.png"]
    assert walk(tmp_path, deep=False).left_in_words() == "1 subfolder (such as b)"


def test_links_are_followed_once(tmp_path):
    outside = write(tmp_path / "outside/o.png")
    root = tmp_path / "root"
    real = write(root / "z.png")
    write(root / "sub/s.png")
    (root / "a_link.png").symlink_to(real)  # sorts before the file that it repeats
    (root / "linked").symlink_to(outside.parent)
    (root / "again").symlink_to(root / "sub")
    (root / "sub/loop").symlink_to(root)
    os.link(real, root / "zz_hard.png")
    (root / "itself").symlink_to(root / "itself")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    found = walk(root)
    assert names(root) == ["linked/o.png", "sub/s.png", "z.png"]
    words = found.left_in_words()
    assert "4 links to what is there already" in words  # a link to a file, two to folders, a hard link
    assert "2 links without a target (such as gone.png)" in words


def test_annexed_files_count_once_and_through_their_links(tmp_path):
    for index in range(3):
        kept = write(tmp_path / f".git/annex/objects/{index}/key.nii.gz", str(index))
        link = tmp_path / f"sub-{index}/anat/t1.nii.gz"
        link.parent.mkdir(parents=True)
        link.symlink_to(os.path.relpath(kept, link.parent))
    assert names(tmp_path) == [f"sub-{index}/anat/t1.nii.gz" for index in range(3)]


@pytest.mark.parametrize("mark", [RECORD, FOLDER_LOCK, "manifest.csv.origin.json"])
def test_what_dinodp_wrote_is_passed_over_below_the_root(tmp_path, mark):
    write(tmp_path / "a.png")
    write(tmp_path / "maps/deep/b.png")
    write(tmp_path / "maps" / mark)
    assert names(tmp_path) == ["a.png"]
    assert walk(tmp_path).left_in_words() == "1 folder that dinodp wrote (such as maps)"
    assert names(tmp_path / "maps") == sorted(["deep/b.png"] + [mark] * (not mark.startswith(".")))


def test_suffixes_count_in_any_case(tmp_path):
    for name in ("a.PNG", "b.Jpeg", "c.txt", "d.json"):
        write(tmp_path / name, name)
    found = files_in(tmp_path)
    assert [path.name for path in found.files] == ["a.PNG", "b.Jpeg"]
    assert found.left_in_words() == "2 files of another format (such as c.txt)"


def test_what_is_left_out_is_said_once(tmp_path, caplog):
    write(tmp_path / "c.txt")
    assert walk(tmp_path).ending((".png",)).say() == []
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}: left out are 1 file of another format (such as c.txt)."


@pytest.mark.parametrize(("first", "second"), [("a.png", "a.PNG"), ("a.jpg", "a.png"), ("a.nii", "a.nii.gz")])
def test_one_name_with_two_suffixes_is_refused(tmp_path, first, second):
    write(tmp_path / first)
    write(tmp_path / second, "y")
    with pytest.raises(InputError, match="differ in their suffix only: is it one picture, saved twice"):
        files_in(tmp_path, (".png", ".jpg", ".nii", ".nii.gz"))


def test_copies_are_found_by_content_also_when_packed(tmp_path):
    content = os.urandom(5000)
    first = write(tmp_path / "a.nii", content)
    packed = write(tmp_path / "b.nii.gz", gzip.compress(content, 1))
    repacked = write(tmp_path / "c.nii.gz", gzip.compress(content, 9, mtime=5))
    other = write(tmp_path / "d.nii", content[::-1])
    damaged = write(tmp_path / "e.nii.gz", b"\x1f\x8b")
    paths = [first, packed, repacked, other, damaged]
    assert copies(paths) == {packed: first, repacked: first}


def test_counts_in_words():
    assert counted(1, "copy of another file") == "1 copy of another file"
    assert counted(3, "folder that dinodp wrote") == "3 folders that dinodp wrote"


def test_folders_count_once_and_not_when_hidden(tmp_path, caplog):
    for name in ("b", "a", ".c", "__MACOSX"):
        (tmp_path / name).mkdir()
    (tmp_path / "aa").symlink_to(tmp_path / "b")
    assert [path.name for path in folders_in(tmp_path)] == ["a", "b"]
    assert f"{tmp_path / 'aa'} is left out: it is a link to a folder beside it." in caplog.text


def test_a_missing_folder_is_said_with_what_is_beside_it(tmp_path):
    (tmp_path / "Train").mkdir()
    with pytest.raises(InputError, match=r"there is no folder .*train; call it so\. Beside it: Train\."):
        require_folder(tmp_path / "train", "; call it so")


def test_a_root_that_cannot_be_opened(tmp_path):
    with pytest.raises(InputError, match=r"The folder .*missing cannot be opened \(No such file or directory\)"):
        walk(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every folder")
def test_a_folder_that_cannot_be_opened_is_named(tmp_path):
    write(tmp_path / "shut/a.png")
    (tmp_path / "shut").chmod(0)
    try:
        assert walk(tmp_path).left_in_words() == "1 folder that cannot be opened (such as shut)"
    finally:
        (tmp_path / "shut").chmod(0o700)


CHANGES = {
    "added": lambda root: write(root / "sub/new.png"),
    "removed": lambda root: (root / "a.png").unlink(),
    "replaced": lambda root: write(root / "a.png", "longer"),
    "replaced, of the same size": lambda root: os.utime(write(root / "a.png", "y"), ns=(5, time.time_ns() + 10**9)),
    "renamed": lambda root: (root / "a.png").rename(root / "b.png"),
    "moved": lambda root: (root / "a.png").rename(root / "sub/a.png"),
    "the target of a link replaced": lambda root: write(root / ".store/kept.png", "longer"),
    "an empty folder": lambda root: (root / "empty").mkdir(),
}


def tree(root):
    write(root / "a.png")
    kept = write(root / ".store/kept.png")
    (root / "sub").mkdir()
    (root / "sub/link.png").symlink_to(kept)
    (root / "sub/loop").symlink_to(root)
    (root / "sub/dead").symlink_to(root / "nowhere")
    return root


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_listing_changes_with_the_files(tmp_path, change):
    root = tree(tmp_path)
    before = listing([str(root)])
    assert listing([str(root)]) == before
    change(root)
    assert listing([str(root)]) != before


IDLE = {
    "hidden": lambda root: write(root / ".git/index"),
    "litter": lambda root: write(root / "sub/Thumbs.db"),
    "results": lambda root: write(root / "results/data/manifest.csv"),
    "half written": lambda root: write(root / "part.0123abcd-77-89abcdef.a.png"),
}


@pytest.mark.parametrize("change", IDLE.values(), ids=IDLE)
def test_the_listing_stays_for_what_is_passed_over(tmp_path, change):
    root = tree(tmp_path)
    before = listing([str(root)], without=str(root / "results"))
    change(root)
    assert listing([str(root)], without=str(root / "results")) == before


def test_the_listing_of_some_suffixes(tmp_path):
    root = tree(tmp_path)
    before = listing([str(root)], (".png",))
    write(root / "notes.txt")
    assert listing([str(root)], (".png",)) == before
    write(root / "sub/B.PNG")
    assert listing([str(root)], (".png",)) != before


def test_the_listing_of_one_file_and_of_none(tmp_path):
    path = write(tmp_path / "patients.json")
    before = listing([str(path), str(tmp_path / "missing")])
    write(path, "longer")
    assert listing([str(path), str(tmp_path / "missing")]) != before
