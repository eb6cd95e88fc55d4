"""`org.toml`: what it may say, and where it is wrong."""

from __future__ import annotations

import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from pitstop_cli.org_file import BadOrgFile, key_lines, read_org_file
from pitstop_cli.org_words import difference_lines, differences, org_lines, pool_differences
from pitstop_common.api_orgs import OrgLimits, OrgView
from pitstop_common.api_pools import PoolLimits, PoolView
from pitstop_common.roles import ProjectRules

WHOLE = """\
org = "acme"   # ours
slots = 8
weight = 2
pressure = "5m"
max_duration = "1h"
longest_session = "1.5h"

[projects.web]
slots = 2
[projects."a.b"]
slots = 0
"""
RULES = """\
org = "acme"
[roles]
ada = "admin"
"*" = "read"
[projects.web]
ssh = false
[projects.api]
slots = 1
ssh_role = "admin"
[projects.api.roles]
bob = "none"
"""


def view(**more: Any) -> OrgView:
    same: dict[str, Any] = {
        "org": "acme", "configured": False, "slots": 4, "own_slots": None, "used": 3, "debug": 1, "waiting": 1,
        "weight": 1, "projects": {}, "used_by_project": {"web": 3}, "pressure": 300.0, "max_duration": 3600.0,
        "longest_session": 7200.0,
    }  # fmt: skip
    return OrgView(**same | more)


def faults(text: str) -> list[str]:
    with pytest.raises(BadOrgFile) as caught:
        read_org_file(text)
    return caught.value.lines("org.toml")


def test_a_whole_file() -> None:
    file = read_org_file(WHOLE)
    assert file.org == "acme"
    assert file.limits == OrgLimits(
        slots=8, weight=2, projects={"web": 2, "a.b": 0}, pressure=300.0, longest_session=5400.0
    )
    assert read_org_file(WHOLE.replace("\n", "\r\n")) == file


def test_what_is_left_out_is_the_default() -> None:
    limits = read_org_file('org = "acme"').limits
    assert limits == OrgLimits()
    assert limits.slots is UNSET and "slots" not in msgspec.to_builtins(limits)


def test_every_fault_is_told_with_its_line() -> None:
    known = "slots, ssh, ssh_role, recording, terminal, exec, sftp, forwarding, agent, roles"
    assert faults(
        'org = "acme"\n\n# slots\nslot = 4\nweight = "2"\npressure = "five"\nlongest-session = "2h"\nslots = -1\n'
        '[projects.web]\nslots = true\nwieght = 1\n[projects."b c"]\nslots = 1\n[projects.empty]\n'
    ) == [
        "org.toml:4: slot: unknown key; did you mean `slots`?",
        "org.toml:5: weight: must be a whole number, not text",
        "org.toml:6: pressure: 'five' is not a duration like 90s, 10m, 2h or 7d",
        "org.toml:7: longest-session: unknown key; did you mean `longest_session`?",
        "org.toml:8: slots: must be at least 0 and at most 100000",
        "org.toml:10: projects.web.slots: must be a whole number, not true",
        f"org.toml:11: projects.web.wieght: unknown key; known: {known}",
        "org.toml:12: projects.'b c': no project has such a name: letters, digits, dots, - and _, at most 100",
        f"org.toml:14: projects.empty: says nothing; known: {known}",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slots = 4\n", ['org.toml: org: is missing: whose limits are these? org = "acme"']),
        ('org = "Acme"', ["org.toml:1: org: must be lower-case letters, digits and -, at most 39"]),
        ('org = "a"\nslots 4\n', ["org.toml:2: not TOML: Expected '=' after a key in a key/value pair"]),
        ('org = "a"\nslots = [\n', ["org.toml:2: not TOML: Invalid value"]),
        ('org = "a"\npressure = "25h"',
         ["org.toml:2: pressure: must be at least 1 and at most 86400"]),
        ('org = "a"\npressure = nan', ["org.toml:2: pressure: must be at least 1 and at most 86400"]),
        ('org = "a"\nprojects = 3', ["org.toml:2: projects: must be tables: [projects.web]"]),
        ('org = "a"\n[projects]\nweb = 2',
         ["org.toml:3: projects.web: must be a table: [projects.web], and in it slots = 2"]),
        ('org = """\na"""\nprojects = {web = {slots = "x"}}',
         ["org.toml:3: projects.web.slots: must be a whole number, not text"]),
        ("[org]\nname = 1", ["org.toml:1: org: must be lower-case letters, digits and -, at most 39"]),
    ],
)  # fmt: skip
def test_one_fault(text: str, told: list[str]) -> None:
    assert faults(text) == told


def test_faults_without_end_are_cut_off() -> None:
    told = faults('org = "a"\n' + "\n".join(f"x{n} = 1" for n in range(500)))
    assert len(told) == 101 and told[1].startswith("org.toml:2: x0: unknown key")


_KEY = st.text("abc-_1", min_size=1, max_size=4)
_SCALAR = st.sampled_from(["1", '"x"', "true", '"""\nlong\n[not.a.table]\n"""', "[\n 1,\n # no\n 2\n]", "1979-05-27"])


_STATEMENT = st.one_of(
    st.sampled_from([("", ""), ("# [projects.x]", "")]),
    st.tuples(_KEY, _SCALAR),
    st.tuples(_KEY.map("[{}]".format), st.just("")),
    st.tuples(st.tuples(_KEY, _KEY).map(".".join), _SCALAR),
)


@given(st.lists(_STATEMENT, max_size=12))
def test_a_key_is_on_the_line_that_says_it(statements: list[tuple[str, str]]) -> None:
    text = "\n".join(f"{key} = {value}" if value else key for key, value in statements)
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = text.split("\n")
    found = key_lines(text)
    assert {path[0] for path in found} == set(parsed)
    for path, line in found.items():
        assert str(path[-1]) in lines[line - 1]


def test_the_difference_in_words() -> None:
    wanted = read_org_file(WHOLE).limits
    before = view(projects={"old": 1, "web": 2})
    assert list(difference_lines(differences(before, wanted))) == [
        "  slots               the default -> 8",
        "  weight              1 -> 2",
        "  longest_session     2 h -> 1 h 30 min",
        "  projects.a.b.slots  the default -> no limit",
        "  projects.old.slots  1 -> the default",
    ]


def test_nothing_differs_from_what_was_applied() -> None:
    assert differences(view(), OrgLimits()) == []
    applied = view(own_slots=8, slots=8, weight=2, projects={"web": 2, "a.b": 0}, longest_session=5400.0)
    assert differences(applied, read_org_file(WHOLE).limits) == []


def test_an_org_as_a_page() -> None:
    assert list(org_lines(view())) == [
        "org acme  (nothing was set for it)",
        "  slots            3 of 4 in use, 1 of them for sessions  (the default)",
        "  waiting          1 job",
        "  weight           1",
        "  pressure         idle at most 5 min while others wait",
        "  max duration     1 h from the first login, unless a run says",
        "  longest session  2 h, also as a run says or when extended",
        "  project web: 3 in use",
        "  roles            no table: everybody has write",
        "  your role        none",
    ]
    page = list(org_lines(view(configured=True, own_slots=0, slots=0, waiting=2, projects={"web": 2})))
    assert page[:3] == ["org acme", "  slots            3 in use, no limit, 1 of them for sessions",
                        "  waiting          2 jobs"]  # fmt: skip
    assert "  project web: 3 of 2 in use" in page


def test_roles_and_rules() -> None:
    limits = read_org_file(RULES).limits
    assert limits.projects == {"api": 1}
    assert limits.roles == {"ada": "admin", "*": "read"}
    assert limits.rules == {
        "web": ProjectRules(ssh=False), "api": ProjectRules(ssh_role="admin", roles={"bob": "none"})
    }  # fmt: skip
    changes = list(difference_lines(differences(view(), limits)))
    assert changes == [
        "  projects.api.slots      the default -> 1",
        "  roles                   no table: everybody has write -> a table",
        "  roles.*                 not named -> read",
        "  roles.ada               not named -> admin",
        "  projects.api.ssh_role   write -> admin",
        "  projects.api.roles.bob  not named -> none",
        "  projects.web.ssh        true -> false",
    ]
    held = view(roles=limits.roles, rules=limits.rules, projects=limits.projects)
    assert differences(held, msgspec.structs.replace(limits, slots=UNSET)) == []
    assert "  project web: SSH is disabled" in list(org_lines(held))
    assert "  roles            * read, ada admin" in list(org_lines(held))


def test_wrong_roles_and_rules_are_told_with_their_lines() -> None:
    assert faults(
        'org = "acme"\n[roles]\nada = "owner"\n"a b" = "read"\n[projects.web]\nssh = "no"\nssh_role = "read"\n'
        "[projects.web.roles]\nbob = 1\n"
    ) == [
        "org.toml:2: roles: 'a b' cannot be a name here",
        "org.toml:3: roles.ada: must be one of admin, none, read, write",
        "org.toml:6: projects.web.ssh: must be true or false, not text",
        "org.toml:7: projects.web.ssh_role: must be one of admin, write",
        "org.toml:9: projects.web.roles.bob: must be text, not a number",
    ]


def test_what_a_project_gives_over_ssh() -> None:
    limits = read_org_file('org = "acme"\n[projects.web]\nforwarding = false\nsftp = false\n').limits
    assert limits.rules == {"web": ProjectRules(forwarding=False, sftp=False)}
    assert list(difference_lines(differences(view(), limits))) == [
        "  projects.web.sftp        true -> false",
        "  projects.web.forwarding  true -> false",
    ]
    assert "  project web: SSH for the role write; without sftp, forwarding" in list(
        org_lines(view(rules=limits.rules))
    )
    assert faults('org = "a"\n[projects.web]\nagent = 1\n') == [
        "org.toml:3: projects.web.agent: must be true or false, not a number"
    ]


POOLS = """\
[pools.default]
slots = 8
[pools.big]   # the default
[pools.open]
slots = 0
"""


def test_pools_in_a_file_of_their_own_or_beside_an_org() -> None:
    file = read_org_file(POOLS)
    assert (file.org, file.limits) == ("", OrgLimits())
    assert file.pools == {"default": PoolLimits(slots=8), "big": PoolLimits(), "open": PoolLimits(slots=0)}
    both = read_org_file(WHOLE + POOLS)
    assert (both.org, both.limits, both.pools) == ("acme", read_org_file(WHOLE).limits, file.pools)
    assert read_org_file(WHOLE).pools == {}


def test_pools_that_a_file_does_not_name_stay_as_they_are() -> None:
    views = [
        PoolView(pool="big", slots=4, own_slots=4, used=5, places=6),
        PoolView(pool="other", slots=2, own_slots=2, used=0, places=1),
    ]
    wanted = read_org_file(POOLS).pools
    assert list(difference_lines(pool_differences(views, wanted))) == [
        "  pools.big.slots      4 -> the default",
        "  pools.default.slots  the default -> 8",
        "  pools.open.slots     the default -> no limit",
    ]
    default = PoolView(pool="big", slots=3, own_slots=None, used=0, places=0)
    assert pool_differences([default], {"big": PoolLimits()}) == []
    page = list(org_lines(view(pools=(*views, PoolView(pool="zoo", slots=0, own_slots=None, used=1, places=9)))))
    assert page[-3:] == [
        "  pool big: 5 of 4 in use by all orgs; 6 places on its hosts",
        "  pool other: 0 of 2 in use by all orgs; 1 place on its hosts",
        "  pool zoo: 1 in use by all orgs, no limit; 9 places on its hosts; its limit is the default",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[pools.default]\nslots = -1\nslot = 2\n[pools.Big]\nslots = 1\n[pools.x]\nslots = true\n",
         ["org.toml:2: pools.default.slots: must be at least 0 and at most 100000",
          "org.toml:3: pools.default.slot: unknown key; did you mean `slots`?",
          "org.toml:4: pools.Big: no pool has such a name: lower-case letters, digits and -, at most 39",
          "org.toml:7: pools.x.slots: must be a whole number, not true"]),
        ("[pools]\ndefault = 8\n",
         ["org.toml:2: pools.default: must be a table: [pools.default], and in it slots = 8"]),
        ("pools = 8\n", ["org.toml:1: pools: must be tables: [pools.default]"]),
        ("slots = 2\n[pools.x]\nslots = 1\n", ['org.toml: org: is missing: whose limits are these? org = "acme"']),
    ],
)  # fmt: skip
def test_wrong_pools_are_told_with_their_lines(text: str, told: list[str]) -> None:
    assert faults(text) == told


def test_more_pools_than_a_file_may_name() -> None:
    (told,) = faults("".join(f"[pools.p{n}]\nslots = 1\n" for n in range(101)))
    assert told.startswith("org.toml:1: pools: ") and "100" in told
