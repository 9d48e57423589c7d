"""Compiling the kernels for a CPU: what a machine may lack, and where the result is kept."""

import ctypes
import os
import shutil
import sys
import warnings

import pytest
import torch
from hoyer_det import kernels
from hoyer_det.kernels import FastHoyerSpike, build, dispatch
from hoyer_det.kernels.dispatch import neuron_kernels

COMPILER = shutil.which('cc')
needs_compiler = pytest.mark.skipif(COMPILER is None, reason='no C compiler')


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """A machine on which nothing was compiled yet."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('CC', raising=False)
    # What the kernels compute is not asked here: compiled without optimization, which takes less time.
    monkeypatch.setattr(build, '_FLAGS', ('-O0', '-fPIC'))
    build.library.cache_clear()
    yield
    build.library.cache_clear()


def compiler(tmp_path, monkeypatch, script):
    """Put a shell script in the place of the compiler."""
    file = tmp_path / 'fake-cc'
    file.write_text(f'#!/bin/sh\n{script}\n')
    file.chmod(0o755)
    monkeypatch.setenv('CC', f'{file} -Wall')  # with an argument, as some have it
    return file


def assert_runs_without_kernels():
    x = torch.randn(2, 3, 4, 4)
    assert neuron_kernels('tested', x) is None
    spikes = FastHoyerSpike().train()(x)
    assert set(spikes.unique().tolist()) == {0, 1}


def test_no_compiler_is_said_once_and_neurons_run_plain(monkeypatch):
    monkeypatch.setenv('CC', 'no-such-compiler')
    with pytest.warns(UserWarning, match='no C compiler .no-such-compiler.* Install'):
        assert build.library() is None
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert_runs_without_kernels()


def test_a_compiler_that_fails_is_quoted(tmp_path, monkeypatch):
    compiler(tmp_path, monkeypatch, 'echo working >&2; echo out of luck >&2; exit 1')
    with pytest.warns(UserWarning, match='fake-cc -Wall failed: out of luck. Install'):
        assert build.library() is None
    assert_runs_without_kernels()
    assert not [*(tmp_path / 'cache' / 'hoyer_det').iterdir()]


def test_a_library_that_does_not_load_is_not_used(tmp_path, monkeypatch):
    script = 'while [ "$1" != -o ]; do shift; done; echo no library > "$2"'
    compiler(tmp_path, monkeypatch, script)
    with pytest.warns(UserWarning, match='run by PyTorch'):
        assert build.library() is None
    assert_runs_without_kernels()


def test_compiling_is_left_out_on_demand(tmp_path):
    FastHoyerSpike(kernels='plain').train()(torch.randn(2, 3, 4, 4))
    assert not (tmp_path / 'cache').exists()


@pytest.mark.parametrize('name', ['cuda', 'cuda_pooling'])
def test_missing_triton_is_said_where_it_was_asked_for(name, monkeypatch):
    monkeypatch.setitem(sys.modules, f'hoyer_det.kernels.{name}', None)
    monkeypatch.setattr(kernels, name, None, raising=False)
    dispatch._triton.cache_clear()
    with pytest.warns(UserWarning, match='operations run instead: .*Install triton'):
        assert dispatch._triton(name) is None
    dispatch._triton.cache_clear()


@needs_compiler
def test_compiled_once_for_a_machine(tmp_path, monkeypatch):
    log = tmp_path / 'log'
    compiler(tmp_path, monkeypatch, f'echo run >> {log}; exec {COMPILER} "$@"')
    for _ in range(2):
        assert isinstance(build.library(), ctypes.CDLL)
        build.library.cache_clear()
    assert log.read_text() == 'run\nrun\n'  # compiled and linked
    (file,) = (tmp_path / 'cache' / 'hoyer_det').iterdir()
    assert file.name.startswith('threads-')


@needs_compiler
def test_a_damaged_library_is_made_again(tmp_path, monkeypatch):
    build.library()
    build.library.cache_clear()
    (good,) = (tmp_path / 'cache' / 'hoyer_det').iterdir()
    bad = tmp_path / 'other' / 'hoyer_det' / good.name
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b'')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'other'))
    assert build.library() is not None
    assert bad.stat().st_size == good.stat().st_size


@needs_compiler
def test_a_compiler_without_openmp_makes_one_thread(tmp_path, monkeypatch):
    compiler(
        tmp_path,
        monkeypatch,
        f'case "$*" in *-fopenmp*) exit 1;; esac; exec {COMPILER} "$@"',
    )
    assert build.library() is not None
    (file,) = (tmp_path / 'cache' / 'hoyer_det').iterdir()
    assert file.name.startswith('single-')


@needs_compiler
@pytest.mark.skipif(not hasattr(os, 'getuid'), reason='no owners of files')
def test_code_is_not_loaded_from_where_others_may_write(tmp_path):
    folder = tmp_path / 'cache' / 'hoyer_det'
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert build.library() is not None
    assert not [*folder.iterdir()]


@needs_compiler
def test_a_cache_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / 'cache').write_text('a file')
    assert build.library() is not None


def test_a_wrong_level_is_named():
    with pytest.raises(ValueError, match="HoyerSpike: kernels must be one of .*got 'fused'"):
        FastHoyerSpike(kernels='fused')
