"""The compiler of C code: what ``$CC`` may be, and where results are kept."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from hoyer_det_runtime.compiler import compile_library

pytestmark = pytest.mark.skipif(shutil.which('cc') is None, reason='no C compiler')


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('CC', raising=False)
    file = tmp_path / 'answer.c'
    file.write_text('int answer(void) { return 42; }\n')
    return file


def answer(source):
    return compile_library(source, [source], ['-fPIC'], 'linked').answer()


@pytest.mark.parametrize('compiler', ['', ' ', 'cc -O0', '"cc" -g'])
def test_compilers_with_and_without_arguments(compiler, source, monkeypatch):
    monkeypatch.setenv('CC', compiler)
    assert answer(source) == 42


@pytest.mark.parametrize(
    'compiler, message',
    [('"cc', 'cannot be read'), ('/no/such -O2', 'no C compiler'), ('cc --no-such', 'failed')],
)
def test_what_is_no_compiler_is_said(compiler, message, source, monkeypatch):
    monkeypatch.setenv('CC', compiler)
    with pytest.raises(RuntimeError, match=message):
        answer(source)


def test_a_cache_that_cannot_be_is_done_without(source, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(source))  # a file
    assert answer(source) == 42


def test_several_compile_at_once(source):
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, [source] * 4)) == [42] * 4
