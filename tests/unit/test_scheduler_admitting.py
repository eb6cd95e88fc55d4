"""What of an org's trust goes along with an answer of `svc.access`."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_common_certificates import CA, GOOD, line

from pitstop_common.certificates import parse, user_of
from pitstop_common.ssh_policy import OrgSsh
from pitstop_scheduler.admitting import _trust

names = st.sampled_from(["ada", "bob", "eve", "ada@corp", "bob@corp"])


@given(st.dictionaries(names, st.sampled_from(["ada", "bob", "eve"])), st.sets(st.sampled_from(["ada", "bob"])),
       st.lists(names, max_size=4))  # fmt: skip
def test_what_is_left_out_changes_nothing(table: dict[str, str], people: set[str], principals: list[str]) -> None:
    policy = OrgSsh(user_ca=[line(CA)], principals=table)
    certificate = msgspec.structs.replace(parse(GOOD), principals=tuple(principals))
    assert user_of(certificate, _trust(policy, people), people) == user_of(certificate, policy, people)
