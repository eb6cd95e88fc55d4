"""`[ssh]` of org.toml: sources of keys, authorities, what is revoked."""

from __future__ import annotations

import msgspec
import pytest
from tests.played_host import KEY

from pitstop_cli.org_file import BadOrgFile, read_org_file
from pitstop_cli.org_words import difference_lines, differences, org_lines
from pitstop_common.api_orgs import OrgLimits, OrgView
from pitstop_common.ssh_policy import OrgSsh, Revoked

MARK = "SHA256:" + "a" * 43
WHOLE = f"""\
org = "acme"
[ssh]
keys_url = "https://git.example/{{user}}.keys"
keys_token = "keys/TOKEN"
user_ca = [
  "{KEY} corp",
]
[ssh.principals]
"ada@example.com" = "ada"
[ssh.revoked]
serials = [7, 8]
ids = ["ada laptop"]
keys = ["{MARK}"]
"""
SSH = OrgSsh(
    keys_url="https://git.example/{user}.keys", keys_token="keys/TOKEN", user_ca=[f"{KEY} corp"],
    principals={"ada@example.com": "ada"}, revoked=Revoked(serials=[7, 8], ids=["ada laptop"], keys=[MARK]),
)  # fmt: skip


def view(ssh: OrgSsh) -> OrgView:
    return OrgView(
        org="acme", configured=True, slots=0, own_slots=None, used=0, debug=0, waiting=0, weight=1, projects={},
        used_by_project={}, pressure=300.0, max_duration=3600.0, longest_session=7200.0, ssh=ssh,
    )  # fmt: skip


def test_all_that_it_may_say() -> None:
    assert read_org_file(WHOLE).limits.ssh == SSH
    assert read_org_file('org = "acme"').limits.ssh == OrgSsh()


def test_what_changes_is_told_line_by_line() -> None:
    assert list(difference_lines(differences(view(OrgSsh()), OrgLimits(ssh=SSH)))) == [
        "  ssh.keys_url                    none -> https://git.example/{user}.keys",
        "  ssh.keys_token                  none -> keys/TOKEN",
        f"  ssh.user_ca                     none -> {KEY} corp",
        "  ssh.revoked.serials             none -> 7",
        "  ssh.revoked.serials             none -> 8",
        "  ssh.revoked.ids                 none -> ada laptop",
        f"  ssh.revoked.keys                none -> {MARK}",
        "  ssh.principals.ada@example.com  none -> ada",
    ]
    assert differences(view(SSH), OrgLimits(ssh=SSH)) == []
    (gone,) = differences(view(SSH), OrgLimits(ssh=msgspec.structs.replace(SSH, user_ca=[])))
    assert (gone.key, gone.old, gone.new) == ("ssh.user_ca", f"{KEY} corp", None)
    shown = "\n".join(org_lines(view(SSH)))
    for text in (
        "https://git.example/{user}.keys, with keys/TOKEN",
        f"{KEY} corp",
        "ada@example.com is ada",
        "7, 8",
        MARK,
    ):
        assert text in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('keys_url = "https://git.example/x.keys"', "ssh.keys_url: must be a URL with {user} once behind the host"),
        ('keys_url = "https://{user}.example/x"', "ssh.keys_url: must be a URL"),
        ('keys_url = "https://git.example/{user}/{user}"', "ssh.keys_url: must be a URL"),
        ('keys_url = "file:///{user}"', "ssh.keys_url: must be a URL"),
        ('keys_token = "keys/TOKEN"', "ssh.keys_token: needs a keys_url to be sent to"),
        ('keys_url = "https://x/{user}"\nkeys_token = "ghp_secret"', "must be CONTEXT/NAME of a secret"),
        ('user_ca = ["ssh-ed25519 AAAA"]', "ssh.user_ca.0: "),
        ('user_ca = "ssh-ed25519 AAAA"', "ssh.user_ca: must be a list, not text"),
        ('keyz_url = "x"', "ssh.keyz_url: unknown key; did you mean `keys_url`?"),
        ("revoked = { serial = [1] }", "ssh.revoked.serial: unknown key; did you mean `serials`?"),
        ("revoked = { serials = [-1] }", "ssh.revoked.serials.0: must be at least 0"),
        ('principals = { "ada@x" = "a b" }', "ssh.principals.'ada@x': must be a user name"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line: str, said: str) -> None:
    with pytest.raises(BadOrgFile) as caught:
        read_org_file(f'org = "acme"\n[ssh]\n{line}\n')
    (told,) = caught.value.lines("org.toml")
    assert told.startswith(("org.toml:3: ", "org.toml:4: "))
    assert said in told
    assert "ghp_secret" not in told
