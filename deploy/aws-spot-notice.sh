#!/usr/bin/env bash
# Runs on each spot node of cluster.yaml. When AWS announces that it takes the machine back, two minutes before,
# Ray is told to drain the node: it gets no new work, and its objects are moved to other nodes.
set -euo pipefail

own_id='
import ray
ray.init("auto", log_to_driver=False, logging_level="ERROR")
print(ray.get_runtime_context().get_node_id())
'
metadata="${METADATA_URL:-http://169.254.169.254}/latest"

while true; do
    # The token of version 2 of the metadata service, which newer images require.
    token=$(curl -sf --max-time 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/api/token" || true)
    # 404 until there is a notice.
    if notice=$(curl -sf --max-time 2 -H "X-aws-ec2-metadata-token: $token" \
        "$metadata/meta-data/spot/instance-action"); then
        echo "notice: $notice"
        node=$(python -c "$own_id")
        exec ray drain-node --node-id "$node" --reason DRAIN_NODE_REASON_PREEMPTION \
            --reason-message "spot notice: $notice" --deadline-remaining-seconds 110
    fi
    sleep "${POLL_SECONDS:-5}"
done
