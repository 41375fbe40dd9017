"""Which versions instances take: policies of names, and pins of single instances."""

from __future__ import annotations

from orchestra.client.access import Access
from orchestra.client.arguments import check_id, check_name, check_policy, check_reason
from orchestra.operations.retarget import check_target, follow_policy, pin
from orchestra.resolution import policy_of, stored_policy
from orchestra.versions import Policy, UnknownPolicy, parse_version

__all__ = ["Versions"]


class Versions:
    """Sets policies and pins, and has executions that have not begun follow them."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def set_policy(
        self, name: str, policy: Policy, reason: str, *, allow_missing: bool
    ) -> int:
        """Set the policy of a name; see :meth:`Client.set_version_policy`."""
        check_name(name, "an orchestration's name")
        check_policy(policy)
        check_reason(reason)
        access = self._access
        catalogue = await access.catalogue(0)
        if not allow_missing:
            check_target(catalogue, name, policy)
        text, admin = stored_policy(catalogue, policy), access.provider.admin
        await access.port.call(lambda: admin.set_policy(name, text, by=access.name, reason=reason))
        access.forget_catalogue()
        try:
            return await self.follow_policy(name)
        finally:
            access.port.written_past()  # now, for this node has them follow as well

    async def follow_policy(self, name: str) -> int:
        """Let held instances follow the policy of a name; see :meth:`Client.follow_policy`."""
        return await self._access.perform(follow_policy(name, self._access.name))

    async def get_policy(self, name: str) -> Policy | UnknownPolicy:
        """Return the policy of a name; see :meth:`Client.get_version_policy`."""
        check_name(name, "an orchestration's name")
        return policy_of(await self._access.catalogue(), name)[0]

    async def pin(self, instance_id: str, version: str, reason: str) -> None:
        """Tie an instance to a version; see :meth:`Client.pin`."""
        check_id(instance_id)
        parse_version(version)
        check_reason(reason)
        await self._access.perform(pin(instance_id, version, by=self._access.name, reason=reason))

    async def unpin(self, instance_id: str, reason: str) -> None:
        """Let the policy choose again; see :meth:`Client.unpin`."""
        check_id(instance_id)
        check_reason(reason)
        await self._access.perform(pin(instance_id, None, by=self._access.name, reason=reason))
