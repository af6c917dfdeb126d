"""The wheel, installed into a fresh environment, is the whole program."""

import configparser
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(*command, cwd):
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The `bin` of an environment with the wheel, made of the source archive."""
    pytest.importorskip("build", reason="the extra `test` has it")
    base = tmp_path_factory.mktemp("package")
    source = base / "source"
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=ignored)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir"]
    run(*build, base / "dist", source, cwd=base)
    (wheel,) = (base / "dist").glob("*.whl")
    venv.create(base / "env")
    binaries = base / "env" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", binaries / "python"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=base)
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = pathlib.Path(run(binaries / "python", "-c", query, cwd=base).strip())
    here = {
        sysconfig.get_path("purelib"),
        str(pathlib.Path(pytest.__file__).parents[1]),
    }
    (own / "libraries.pth").write_text("\n".join(here) + "\n")
    return binaries


def test_it_trains_proves_and_exports_beside_a_folder_of_the_user(installed, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise SystemExit('not this one')")
    program = installed / "keepstep"
    where = run(
        installed / "python", "-c", "import trainer; print(trainer.__file__)", cwd="/"
    )
    assert where.startswith(str(installed.parent)), where
    short = ["--flagfile=digits", "--steps=20", "--run_dir=run"]
    assert "complete at step 20" in run(program, "train", *short, cwd=tmp_path)
    assert "digits" in run(program, "tasks", cwd=tmp_path)
    done = run(program, "export", "--run_dir=run", "--format=keras", cwd=tmp_path)
    assert "loaded back in a fresh process" in done
    arguments = ["--flagfile=digits", "--steps=20", "--kills=1"]
    assert "nothing differs" in run(program, "prove", *arguments, cwd=tmp_path)
    module = [installed / "python", "-m", "trainer", "list", "--run_dir=run"]
    assert "ckpt-20" in run(*module, cwd=tmp_path)


def test_every_package_is_in_the_wheel():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = set(config["options"]["packages"].split()) - {"keepstep_tasks"}
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "trainer").rglob("__init__.py")
    }
    assert named == there


def test_the_readme_has_no_link_that_an_index_page_breaks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](docs/" not in text
