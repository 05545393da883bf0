"""The settings: what they are, where they come from, and what is wrong with them.

Later wins: defaults, `config.json`, `.env`, the environment, `--set`, other command-line options.

A setting has a dotted name, `limits.turns`. In config.json it is a key in an object, `{"limits": {"turns":
5}}`; in the environment and in `.env` it is `RLM_LIMITS__TURNS=5`: RLM_, the name in capitals, two
underscores for the dot. `RLM_MODEL` and `RLM_SUB_MODEL` are short for RLM_ROOT_LLM__MODEL and
RLM_SUB_LLM__MODEL, which win over them. An empty value counts as unset; the value `none` (or `null`) lifts a
limit or unsets what may be unset. Other variables of this project that start with RLM_ are in NOT_SETTINGS.
"""

from rlm_kernel.config.envfile import find_api_keys, from_dotenv, load_api_keys
from rlm_kernel.config.keynames import kept_in_keyring, note_kept, note_removed, provider_variable
from rlm_kernel.config.loading import Explained, explain_settings, load_settings, with_changes
from rlm_kernel.config.servers import MCPServer
from rlm_kernel.config.settings import (
    CacheSettings,
    GLMCodingSettings,
    LimitSettings,
    LLMSettings,
    MCPSettings,
    MemoryCompactionSettings,
    OtherLLM,
    PromptSettings,
    SandboxSettings,
    SessionSettings,
    Settings,
    TraceSettings,
    field_of,
    known_keys,
)
from rlm_kernel.config.sources import (
    CONFIG_FILE,
    NOT_SETTINGS,
    SHORTHANDS,
    from_assignments,
    from_server_files,
    is_secret,
    variable_of,
)
from rlm_kernel.config.values import parse_size

__all__ = [
    "CONFIG_FILE",
    "NOT_SETTINGS",
    "SHORTHANDS",
    "CacheSettings",
    "Explained",
    "GLMCodingSettings",
    "LLMSettings",
    "LimitSettings",
    "MCPServer",
    "MCPSettings",
    "MemoryCompactionSettings",
    "OtherLLM",
    "PromptSettings",
    "SandboxSettings",
    "SessionSettings",
    "Settings",
    "TraceSettings",
    "explain_settings",
    "field_of",
    "find_api_keys",
    "from_assignments",
    "from_dotenv",
    "from_server_files",
    "is_secret",
    "kept_in_keyring",
    "known_keys",
    "load_api_keys",
    "load_settings",
    "note_kept",
    "note_removed",
    "parse_size",
    "provider_variable",
    "variable_of",
    "with_changes",
]
