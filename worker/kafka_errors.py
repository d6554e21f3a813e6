"""What kafka-python's errors mean to a worker."""

from kafka.errors import (
    AuthorizationError,
    CommitFailedError,
    FencedInstanceIdError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    InvalidTopicError,
    RebalanceInProgressError,
    SaslAuthenticationFailedError,
    UnknownMemberIdError,
    UnsupportedVersionError,
)

# The broker will not have this client: trying again changes nothing.
REFUSED = (
    AuthorizationError,
    InvalidTopicError,
    SaslAuthenticationFailedError,
    UnsupportedVersionError,
)
# The same for a member of a consumer group.
MEMBER_REFUSED = (
    *REFUSED,
    FencedInstanceIdError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
)
# Not this member's any more: whoever has the partition now will see the records again.
LOST = (CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError)
