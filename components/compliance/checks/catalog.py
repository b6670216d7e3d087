"""All checks by name."""

from __future__ import annotations

from collections.abc import Callable

from raypath.components.compliance.checks import access, data, models, stored
from raypath.components.compliance.evidence import Evidence
from raypath.components.compliance.outcome import Answer
from raypath.components.compliance.profile import Profile

Check = Callable[[Evidence, Profile], Answer]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        data.personal_data_known,
        data.redaction_on,
        data.redaction_in_service,
        data.texts_not_stored,
        data.data_documented,
        data.profile_answered,
        access.store_encrypted,
        access.files_private,
        access.transport_encrypted,
        access.keys_required,
        access.keys_limited,
        stored.retention_set,
        stored.retention_applied,
        stored.forgetting_possible,
        stored.forgetting_done,
        stored.audit_verified,
        stored.audit_anchored,
        stored.backup_recent,
        stored.backup_verified,
        stored.requests_logged,
        stored.logs_kept,
        models.models_signed,
        models.model_card,
        models.accuracy_measured,
        models.slices_measured,
        models.confidence_shown,
        models.rollback_possible,
        models.output_filtered,
        models.stated,
    )
}
