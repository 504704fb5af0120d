# ruff: noqa: E501 - quotes lines of the store as they stand
"""Faults built into the store, one at a time: what each replaces, why it is a fault, and what should find it.

`old` must occur exactly once in its file. The rest of a mutant's edits, where it has some, are in the same file.

Not here are four faults that were tried and change nothing, because another check sees the same: a file's size and kind
before its hash, the layout of a column after the walk through its header, and whether an import finds its entry.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A change of one file of the package that makes it wrong."""

    file: str
    old: str
    new: str
    why: str
    first: str
    """The part of the detector that is tried first."""
    more: tuple[tuple[str, str], ...] = ()
    quick: bool = False
    """Whether it is tried in `make test`, too."""


COMMIT, WORK, PUBLISH = "store/commit.py", "store/work.py", "store/publish.py"
RECORD = "store/record.py"
BASE, ORDER = "first extraction", "finished by extract"

UNSYNCED = [
    Mutant(
        COMMIT,
        "        os.fsync(descriptor)\n    except BaseException:",
        "    except BaseException:",
        "bytes of a new file are not synced",
        BASE,
        quick=True,
    ),
    Mutant(
        COMMIT,
        "        os.fsync(descriptor)\n    except OSError",
        "        pass\n    except OSError",
        "no folder is",
        BASE,
    ),
    Mutant(
        COMMIT,
        "            _make_one(folder)\n            sync_folder(folder.parent)\n",
        "            _make_one(folder)\n",
        "new folder",
        BASE,
    ),
    Mutant(
        COMMIT,
        "            sync_given_names(path.parent)  # the folder that the cache lies in may not be this user's\n",
        "",
        "folders that another process has made",
        f"{BASE}, killed",
    ),
    Mutant(
        COMMIT,
        "        if sync:  # of a name that was taken, too: whoever took it may not have come to it\n",
        "        if sync and not taken:\n",
        "a name that another process has taken",
        f"{BASE}, killed",
    ),
    Mutant(
        COMMIT,
        "        if sync:  # of a name that was taken, too: whoever took it may not have come to it\n",
        "        if sync and taken:\n",
        "a name just taken",
        BASE,
    ),
    Mutant(
        COMMIT,
        "            raise\n        sync_folder(path.parent)\n\n\ndef publish_file",
        "            raise\n\n\ndef publish_file",
        "a file replaced",
        "file replaced",
    ),
    Mutant(
        COMMIT,
        "                os.fsync(descriptor)\n            finally:",
        "                pass\n            finally:",
        "an exported file",
        "export",
    ),
    Mutant(
        COMMIT, "path)\n            sync_folder(path.parent)\n    finally:", "path)\n    finally:", "its name", "export"
    ),
    Mutant(
        COMMIT,
        "            sync_folder(path.parent)  # else it could be back after a power loss, without its files\n",
        "",
        "a folder removed",
        "prune",
    ),
    Mutant(PUBLISH, "    sync_folder(folder / SHARDS)\n", "", "the names of an entry's shards", BASE),
    Mutant(
        PUBLISH,
        "replace=False)\n    sync_folder(folder)\n",
        "replace=False)\n",
        "that an entry holds nothing else",
        BASE,
    ),
    Mutant(
        PUBLISH,
        "        sync_folder(goal.parent)  # also for a name that another process has given just now\n",
        "",
        "an entry's name",
        BASE,
        quick=True,
    ),
    Mutant(
        WORK,
        "                    sync_folder(path.parent)  # another process may have given the name just now\n",
        "                    pass\n",
        "a shard's name given by another",
        f"{BASE}, killed",
    ),
    Mutant(
        "store/verify.py",
        "        sync_folder(path.parent)\n        sync_folder(goal",
        "        sync_folder(goal",
        "that a damaged file went",
        "repair",
    ),
    Mutant("store/verify.py", "        sync_folder(goal.parent)\n", "", "where a damaged file went", "repair"),
]
SWAPPED = [
    Mutant(
        WORK,
        "            self._publish_bytes(data, record.sha256, equal)\n            return self._publish_record(record, stale)\n",
        "            done = self._publish_record(record, stale)\n            self._publish_bytes(data, record.sha256, equal)\n            return done\n",
        "the record before the bytes",
        BASE,
        quick=True,
    ),
    Mutant(
        PUBLISH,
        "        _fill(folder, body, shards, table, skipped)\n        return _put(folder, goal, replace=replace)\n",
        "        os.rename(folder, goal)\n        sync_folder(root)\n        _fill(goal, body, shards, table, skipped)\n        return open_entry(goal)\n",
        "the entry's name before its content",
        BASE,
    ),
    Mutant(
        COMMIT,
        "        try:\n            os.replace(temporary, path)\n",
        "        try:\n            path.unlink(missing_ok=True)\n            os.replace(temporary, path)\n",
        "the old file goes before the new one has its name",
        "file replaced",
    ),
    Mutant(
        "extraction/publish.py",
        "    job.work.discard()\n    return entry\n",
        "    return entry\n",
        "the work goes before its entry is published",
        ORDER,
        more=(("        ledger = skipped_csv(", "        job.work.discard()\n        ledger = skipped_csv("),),
    ),
    Mutant(
        COMMIT,
        "        with contextlib.suppress(FileNotFoundError):  # another process was quicker\n            os.rename(path, gone)\n",
        "        gone = path\n        with contextlib.suppress(FileNotFoundError):\n",
        "a folder's files go before its name",
        "prune",
    ),
    Mutant(
        COMMIT,
        "        view = memoryview(data)\n        while view:",
        "        os.fsync(descriptor)\n        view = memoryview(data)\n        while view:",
        "synced before it is written",
        BASE,
        more=(("        os.fsync(descriptor)\n    except BaseException:", "    except BaseException:"),),
    ),
    Mutant(
        PUBLISH,
        "    gone: list[Path] = []\n",
        "    gone: list[Path] = []\n    remove_folder(goal)\n",
        "an entry is gone while the next is not there",
        "publishing",
    ),
]
UNCHECKED = [
    Mutant(
        "store/verified.py",
        "    if sha256_bytes(data) != sha256:",
        "    if False:",
        "hash of a file",
        "turned_bits",
        quick=True,
    ),
    Mutant(
        "store/verified.py", "            if found != size:", "            if False:", "size of a file", "turned_bits"
    ),
    Mutant("store/verified.py", " | os.O_NOFOLLOW", "", "links are followed", "no_regular_files"),
    Mutant("store/verified.py", " | os.O_NONBLOCK", "", "pipes are waited for", "no_regular_files"),
    Mutant(
        "store/verified.py",
        "    if not stat.S_ISREG(os.fstat(descriptor).st_mode):",
        "    if False:",
        "what is no file is read",
        "no_regular_files",
    ),
    Mutant(COMMIT, "        return is_sealed(document) and ", "        return ", "seal of a document", "other_values"),
    Mutant(
        COMMIT,
        'is_sealed(document) and json.dumps(document, indent=1, ensure_ascii=True).encode() + b"\\n" == data',
        "is_sealed(document)",
        "text of a document",
        "other_spellings",
    ),
    Mutant(
        "digest.py",
        'document.get("sha256") == seal(document)["sha256"]',
        'document.get("sha256")',
        "seal is there but not compared",
        "other_values",
    ),
    Mutant(
        "store/entry.py",
        '        if found != self.manifest["id"]:',
        "        if False:",
        "whose sample table it is",
        "other_content",
    ),
    Mutant(
        "store/entry.py",
        "    if ID_NAME.fullmatch(path.name) and",
        "    if False and",
        "name of an entry's folder",
        "other_names",
        quick=True,
    ),
    Mutant(
        "store/entry.py",
        "    check_manifest(manifest, str(path / MANIFEST))\n",
        "",
        "fields of a manifest",
        "other_content",
    ),
    Mutant(
        "store/manifest.py",
        '    if listed != manifest["samples_listed"] or not',
        "    if not",
        "rows of the shards",
        "other_content",
    ),
    Mutant("store/manifest.py", '0 <= manifest["rows"] <= listed:', "True:", "rows of the entry", "other_content"),
    Mutant(
        "store/manifest.py",
        "    if not all(HEX.fullmatch(text) for text in hashes):",
        "    if False:",
        "a hash that is a path",
        "other_content",
    ),
    Mutant("store/fields.py", " or isinstance(value[name], bool):", ":", "True for a number", "other_content"),
    Mutant(
        "store/statindex.py",
        'head != MAGIC + sha256_bytes(payload).encode() + b"\\n" or ',
        "",
        "hash of the stat index",
        "turned_bits",
    ),
    Mutant(
        "store/statindex.py",
        '("inode", "size", "mtime", "ctime")):\n            known',
        '("inode", "size", "mtime")):\n            known',
        "ctime of a file",
        "fresh_files",
    ),
    Mutant(
        "store/statindex.py",
        "    return np.asarray(rows[old])",
        "    return rows",
        "a file as new as its reading",
        "fresh_files",
    ),
    Mutant(
        "store/statindex.py",
        "np.maximum(stats[:, 2], stats[:, 3])",
        "stats[:, 2]",
        "a file whose ctime is new",
        "fresh_files",
    ),
    Mutant(
        WORK,
        "        if record.shard != number:\n            return None\n",
        "",
        "number of a record",
        "other_names",
    ),
    Mutant(
        WORK,
        "            self.plan,\n        ):",
        '            body.get("plan"),\n        ):',
        "whose plan it is",
        "other_names",
    ),
    Mutant(RECORD, "!= (RECORD_FORMAT, FORMAT_VERSION):", "== ():", "format of a record", "other_values"),
    Mutant(
        WORK,
        "        if there is None or there.sha256 == stale:",
        "        if there is None:",
        "a record out of date",
        "two_writers",
    ),
    Mutant(
        WORK,
        "        if there is None or there.sha256 == stale:",
        "        if True:",
        "the first record holds",
        "two_writers",
    ),
    Mutant(
        WORK,
        "        there = self._plan() or body\n",
        "        there = body\n",
        "the first recipe holds",
        "two_writers",
    ),
    Mutant(WORK, " and path.read_bytes() == data", "", "bytes of a file to be linked", "two_writers"),
    Mutant(
        "store/rows.py",
        "            equal = (rows.digests[there] == digests[here]).all(axis=1)",
        "            equal = np.ones(len(here), bool)",
        "digest of a row",
        "near_digests",
        quick=True,
    ),
    Mutant(
        "store/rows.py",
        "    rows = np.flatnonzero(usable)",
        "    rows = np.arange(len(usable))",
        "whether a row is usable",
        "near_digests",
    ),
    Mutant("store/verify.py", "sha256_file(path) == sha256", "True", "hash in a full check", "turned_bits"),
    Mutant(
        "store/verify.py", " or find_foreign(entry)", "", "whose sample table it is, in a full check", "other_content"
    ),
    Mutant(
        "store/shard.py",
        '    if attributes.get("space_sha256") != space.sha256:',
        "    if False:",
        "space of a shard",
        "wrong_shards",
    ),
    Mutant(
        "store/shard.py", '    if attributes.get("format") != FORMAT or', "    if", "format of a shard", "wrong_shards"
    ),
    Mutant(
        "store/shard.py",
        "        if columns[name].shape != shape or",
        "        if",
        "shape of a shard's column",
        "wrong_shards",
    ),
    Mutant(
        "store/samples.py",
        "            if n and not least <= int(columns[name].min()) <=",
        "            if n and not int(columns[name].min()) <=",
        "values below zero",
        "wrong_tables",
    ),
    Mutant(
        "store/columns.py",
        "        if not isinstance(file.get(name, getlink=True), h5py.HardLink):",
        "        if False:",
        "links inside a file",
        "wrong_shards",
    ),
    Mutant(
        "store/columns.py",
        "    if len(file) != len(names) or sorted(file) != sorted(names):",
        "    if False:",
        "names in a file",
        "wrong_shards",
    ),
    Mutant(
        "store/columns.py",
        "        if not ((text or integer) and small)",
        "        if not small",
        "kinds of attributes",
        "wrong_shards",
    ),
]
UNGUARDED = [
    Mutant(
        COMMIT,
        "os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444",
        "os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644",
        "a new file over an old one",
        "taken_names",
        quick=True,
    ),
    Mutant(
        COMMIT,
        "            return publish_link(temporary, path)\n",
        "            return os.replace(temporary, path) or True\n",
        "a taken name is replaced",
        "taken_names",
    ),
    Mutant(
        COMMIT,
        "        try:\n            os.replace(temporary, path)\n",
        "        try:\n            path.write_bytes(data)\n            temporary.unlink()\n",
        "a file changed in place",
        "taken_names",
    ),
    Mutant(
        COMMIT,
        "        except FileExistsError:\n            taken = True\n",
        "        except FileExistsError:\n            taken = False\n",
        "a taken name counts as given",
        "taken_names",
    ),
    Mutant(
        COMMIT,
        "            temporary.unlink(missing_ok=True)\n\n\ndef publish_link",
        "            pass\n\n\ndef publish_link",
        "a temporary file stays",
        "taken_names",
    ),
    Mutant(
        COMMIT,
        "            os.unlink(path)\n        raise\n",
        "            pass\n        raise\n",
        "half a file stays",
        "failing_disk",
    ),
    Mutant(
        COMMIT,
        "        if error.errno != errno.EINVAL:",
        "        if False:",
        "a folder that cannot be synced",
        "failing_disk",
    ),
    Mutant(
        PUBLISH,
        "            there = None if replace else _whole(goal)\n",
        "            there = None\n",
        "a whole entry is replaced",
        "publishing",
    ),
    Mutant(
        PUBLISH,
        "    return None if find_damage(entry) else entry",
        "    return entry",
        "a damaged entry is kept",
        "publishing",
    ),
    Mutant("store/catalog.py", ' if not path.parent.name.startswith(".")', "", "half-made entries are seen", BASE),
    Mutant(
        WORK,
        "            except FileNotFoundError:\n                if not left:\n                    raise\n",
        "            except ZeroDivisionError:\n                raise\n",
        "work removed meanwhile",
        "first extraction, beside",
    ),
]
MUTANTS = [*UNSYNCED, *SWAPPED, *UNCHECKED, *UNGUARDED]
