"""Trees that hostile code wrote are removed whole, and nothing beside them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pitstop_sandbox.backends.trees import give_tree, remove_tree


def test_a_tree_is_removed_and_what_its_links_show_is_not(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").touch()
    (tree / "a" / "link").symlink_to(outside)
    (tree / "b").symlink_to(outside / "file")
    os.mkfifo(tree / "a" / "pipe")
    remove_tree(tree)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["outside"]
    assert sorted(each.name for each in outside.iterdir()) == ["file", "folder"]


def test_a_link_in_the_place_of_a_tree_is_removed_alone(tmp_path: Path) -> None:
    (tmp_path / "outside" / "kept").mkdir(parents=True)
    (tmp_path / "tree").symlink_to(tmp_path / "outside")
    remove_tree(tmp_path / "tree")
    assert (tmp_path / "outside" / "kept").is_dir()
    assert not (tmp_path / "tree").is_symlink()


def test_no_tree_is_no_error(tmp_path: Path) -> None:
    remove_tree(tmp_path / "none")


def test_a_very_deep_tree_is_removed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    fd = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 50, dir_fd=fd)
        deeper = os.open("d" * 50, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_folders_their_owner_has_closed_are_removed(tmp_path: Path) -> None:
    closed = tmp_path / "tree" / "a" / "b"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    closed.chmod(0)
    closed.parent.chmod(0o500)
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_giving_follows_no_link_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=r"."):
        give_tree(tmp_path, tmp_path / "link" / "file", os.geteuid(), os.getegid())
    give_tree(tmp_path, tmp_path / "outside", os.geteuid(), os.getegid())


def test_giving_stays_below_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="subpath"):
        give_tree(tmp_path, Path("/etc/hostname"), os.geteuid(), os.getegid())
