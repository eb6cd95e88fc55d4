"""What the log and the settings of the deployment say of people, for those who answer them."""

from __future__ import annotations

from pitstop_common.api import VERBS
from pitstop_common.errors import Denied
from pitstop_common.permissions import PUBLISHER
from pitstop_common.roles import SERVICES, ProjectRules, Role, Services, at_least
from pitstop_common.ssh_policy import OrgSsh
from pitstop_scheduler.calls import Caller
from pitstop_scheduler.config import Config
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.roles import Barred, admins, highest_role, may_enter, org_role, project_role, too_little


class Policy:
    """Roles as the fold has them. Those whom the deployment names (`PITSTOP_ADMINS`) are admins whatever an org says:
    it is they who make the first roles and tokens."""

    def __init__(self, logs: Logs, config: Config) -> None:
        self._logs, self._admins, self._closed = logs, set(config.admins), set(config.ssh_disabled)

    def role(self, org: str, user: str, project: str = "") -> Role:
        """Of a person in a project, or in the org itself. A publisher has write: NATS holds it to two verbs."""
        if {f"{org}/{user}", f"*/{user}"} & self._admins:
            return "admin"
        if user == PUBLISHER:
            return "write"
        state = self._logs.state(org).org(org)
        return project_role(state, user, project) if project else org_role(state, user)

    def need(self, caller: Caller, verb: str, project: str = "", owner: str = "") -> None:
        """Raises Denied when the caller may not do this: in a project, to what is `owner`'s."""
        rule = VERBS[verb]
        touches_others = rule.others != "none" and owner not in {"", caller.actor}
        needed = rule.others if touches_others else rule.role
        role = self.role(caller.org, caller.actor, project)
        if rule.on == "member" and not touches_others and role != "admin":
            role = highest_role(self._logs.state(caller.org).org(caller.org), caller.actor)
        if not at_least(role, needed):
            what = f"`{verb}`" + (f" of what is {owner}'s" if touches_others else "")
            what += f" in {caller.org}/{project}" if project else f" in org {caller.org}"
            org = self._logs.state(caller.org).org(caller.org)
            raise Denied(too_little(org, caller.org, caller.actor, role, needed, what))

    def of_deployment(self, user: str) -> bool:
        """Is a person an admin of every org, by the deployment's word (`*/user`)."""
        return f"*/{user}" in self._admins

    def need_deployment(self, caller: Caller, verb: str, what: str) -> None:
        """Raises Denied when the caller is no admin of the deployment. `what` it would touch, in words."""
        if not self.of_deployment(caller.actor):
            raise Denied(f"`{verb}` of {what} needs an admin of the deployment, which {caller.actor} is not. Who "
                         f"runs the schedulers can change it: `*/{caller.actor}` in PITSTOP_ADMINS")  # fmt: skip

    def admins(self, org: str) -> str:
        """Who can change the rules of an org, in words."""
        return admins(self._logs.state(org).org(org), org)

    def may_read(self, caller: Caller, project: str) -> bool:
        """May the caller see the runs of a project."""
        return at_least(self.role(caller.org, caller.actor, project), "read")

    def services(self, org: str, project: str) -> Services:
        """What a project gives to those who enter."""
        rules = self._logs.state(org).org(org).rules.get(project, ProjectRules())
        return Services(**{name: getattr(rules, name) for name in SERVICES})

    def ssh(self, org: str) -> OrgSsh:
        """How the people of an org prove who they are."""
        return self._logs.state(org).org(org).ssh

    def recorded(self, org: str, project: str) -> bool:
        """Does a project want its terminals recorded."""
        return self._logs.state(org).org(org).rules.get(project, ProjectRules()).recording

    def barred(self, org: str, project: str, user: str) -> Barred | None:
        """Why the rules keep a person out of sessions of a project; None: they do not."""
        name = f"{org}/{project}"
        if {name, f"{org}/*"} & self._closed:
            return Barred(
                "ssh_disabled",
                f"SSH is disabled for project {name}. Who operates the scheduler can allow it: take it out of "
                "PITSTOP_SSH_DISABLED",
            )
        return may_enter(self._logs.state(org).org(org), org, project, user, self.role(org, user, project))
