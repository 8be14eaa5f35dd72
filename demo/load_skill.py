"""Loads a skill as an agent does it: with skills-runtime-sdk, unchanged, over the role of an agent.

Usage: load_skill.py TEXT, where TEXT mentions skills as $[namespace].name; the connection comes from DEMO_DSN.
"""

import sys
from pathlib import Path

from skills_runtime.skills.manager import SkillsManager

CONFIG = {
    "spaces": [{"id": "demo", "namespace": "default", "sources": ["database"], "enabled": True}],
    "sources": [
        {
            "id": "database",
            "type": "pgsql",
            "options": {"dsn_env": "DEMO_DSN", "schema": "skill_system", "table": "skills"},
        }
    ],
}

with SkillsManager(workspace_root=Path("."), skills_config=CONFIG) as manager:
    report = manager.scan()
    print(f"{len(report.skills)} skill(s) found, {len(report.errors)} error(s)")
    for skill, mention in manager.resolve_mentions(sys.argv[1]):
        print(manager.render_injected_skill(skill, source="mention", mention_text=mention.mention_text))
