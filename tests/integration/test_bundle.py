"""A kernel imports at its start what is in the image's bundle; code in its cells sees no difference."""

from __future__ import annotations

from typing import Any

KINDS = """
import collections, sys
kinds = {name: type(module).__name__ for name, module in sys.modules.items() if name.startswith("rlm_runtime.")}
print(collections.Counter(kinds.values()).get("Unread", 0) >= 5, kinds["rlm_runtime.wire"])
print([type(finder).__name__ for finder in sys.meta_path if type(finder).__module__ == "rlm_runtime.bundle"])
print({type(sys.modules[name].__spec__.loader).__name__ for name in ("IPython", "asyncio", "traitlets")})
"""
USES = {
    # A module of a package before the package itself is used, which imports that module.
    "import platformdirs.unix as u, platformdirs\nprint(f'is{isinstance(platformdirs.PlatformDirs(), u.Unix)}')": "isTrue",
    "import zipfile, importlib.util as u\np = hasattr(zipfile, '__path__') and u.find_spec('zipfile._path')\n"
    "print(f'is{not p or __import__(p.name)._path.Path is zipfile.Path}')": "isTrue",
    "import ssl, asyncio\nprint(ssl.create_default_context().check_hostname, asyncio.sslproto.ssl is ssl)": "True True",
    "from ssl import SSLContext, PROTOCOL_TLS_SERVER\nprint(SSLContext(PROTOCOL_TLS_SERVER).verify_mode.name)": "CERT_NONE",
    "import asyncio.base_events, asyncio.selector_events as s\nprint(s.ssl.SSLError.__name__)": "SSLError",
    "import pdb\nprint(pdb.Pdb.__module__, pdb.set_trace.__module__)": "IPython.core.debugger IPython.core.debugger",
    "import sys, jupyter_client\nprint('jupyter_client.manager' in sys.modules, jupyter_client.__version__ > '')": "False True",
    "from jupyter_client import KernelManager, BlockingKernelClient\nprint(KernelManager.__name__)": "KernelManager",
    "import jupyter_client\nprint(jupyter_client.find_connection_file.__module__)": "jupyter_client.connect",
    "print(get_ipython().kernel.parent.blocking_class.__module__)": "jupyter_client.blocking.client",
    "import hashlib, hmac\nprint(len(hashlib.scrypt(b'', salt=b'', n=2, r=1, p=1)), hmac._hashopenssl is not None)": "64 True",
    "import sys\nprint(all(name in sys.modules for name in ('typing', 'json', 'socket')), sys.modules['json'].__spec__.cached)": "True /",
    "import tarfile, io\nprint(tarfile.open(fileobj=io.BytesIO(), mode='w').getnames())": "[]",
    "import difflib, shlex, base64, bz2, lzma, zipfile, ipaddress\n"
    "print(shlex.split('a b'), base64.b64encode(b'a'), bz2.decompress(bz2.compress(b'x')), ipaddress.ip_address('::1'))": "::1",
    "from decimal import Decimal\nprint(Decimal('0.1') + 1)": "1.1",
    "import re\nprint(re.compile(r'(?P<day>\\d+)-x', re.I).fullmatch('3-X')['day'])": "3",
    "import inspect, rlm_runtime.numbers as n\nprint(inspect.getsource(n).startswith('\"'), n.NUMBER is not None)": "True True",
    "import inspect, json, IPython\nprint('def loads' in inspect.getsource(json), len(inspect.getsource(IPython)) > 9)": "True True",
    "import importlib, traitlets, json\nprint(importlib.reload(json) is json, importlib.reload(traitlets) is traitlets)": "True True",
    "import pkgutil, IPython\nprint('core' in [one.name for one in pkgutil.iter_modules(IPython.__path__)])": "True",
    "import importlib.metadata as m, importlib.resources as r\nprint(m.version('ipython')[0] > '0', r.files('IPython').is_dir())": "True True",
    "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'import IPython, ssl; print(1)'], "
    "capture_output=True, text=True).stdout)": "1",
    "import multiprocessing\nwith multiprocessing.Pool(2) as pool:\n    print(pool.map(str.upper, ['a', 'b']))": "['A', 'B']",
    "import pandas\nprint(pandas.DataFrame({'a': [1, 2]})['a'].sum())": "3",
    "import matplotlib\nmatplotlib.use('agg')\nfrom matplotlib import pyplot\nprint(len(pyplot.plot([1, 2])))": "1",
    "from datetime import datetime\nimport dateutil.parser\nprint(dateutil.parser.isoparse('2026-01-02').day)": "2",
    "%time pass\nfrom IPython.core.completer import provisionalcompleter\nwith provisionalcompleter():\n"
    "    print('print' in [one.text for one in get_ipython().Completer.completions('pri', 3)])": "True",
    "import asyncio\nprint(await asyncio.gather(asyncio.sleep(0, 1), asyncio.to_thread(len, 'ab')))": "[1, 2]",
    "%%capture said\nprint('held')": "",
    "print(said.stdout)": "held",
    "get_ipython().run_line_magic('pinfo', 'len')": "Return the number of items",
    "import gc, sys\nprint(gc.isenabled(), [n for n, m in list(sys.modules.items()) if not hasattr(m, '__name__')])": "True []",
}


async def test_code_sees_modules_out_of_the_bundle_as_python_itself_finds_them(sandbox: Any) -> None:
    box = await sandbox()
    told = (await box.text(KINDS)).split("\n")
    assert told[:3] == ["True module", "[]", "{'SourceFileLoader'}"]
    for code, said in USES.items():
        assert said in await box.text(code), code
    assert "ZeroDivisionError" in await box.text("def f():\n    return 1 / 0\nf()")
    unread = (
        "import inspect, sys, threading\nname = next(n for n, m in sys.modules.items() if type(m).__name__ == 'Unread')\n"
        "inspect.getmodule(sys._getframe())\nprint(type(sys.modules[name]).__name__)\n"
        "threads = [threading.Thread(target=vars, args=(sys.modules[name],)) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\nprint(type(sys.modules[name]).__name__)"
    )
    assert await box.text(unread) == "Unread\nmodule"
