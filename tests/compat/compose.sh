#!/bin/bash
# docker compose 2.40.3 with two projects: every command is asserted on.
# Usage: compose.sh fetch | images | run EXPECTED RESULTS
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir="$COMPAT_DIR/compose"
case "$1" in
    fetch)
        plugin=$("$here/../../scripts/compose-cli.sh")
        mkdir -p "$dir/config/cli-plugins"
        ln -sfn "$plugin" "$dir/config/cli-plugins/docker-compose"
        exit ;;
    images) echo busybox; exit ;;
esac
export DOCKER_CONFIG="$dir/config"
results="$3"
compose() { timeout 60 docker compose --ansi never --progress plain --file "$here/project/compose.yaml" "$@"; }
inside() { compose exec -T "$@"; }
started() { docker inspect --format '{{.State.StartedAt}}' "$(compose ps --quiet --all "$1")"; }

up_waits_until_everything_runs() { compose up --detach --wait; }
ps_shows_every_service_and_its_health() {
    [ "$(compose ps --format '{{.Service}} {{.State}} {{.Health}}' | sort)" = "$(printf '%s\n' 'outsider running ' 'store running healthy' 'web running ')" ]
}
a_dependent_starts_when_what_it_needs_is_healthy() {
    # The page is there only once the store is healthy; a web that had come too early would have no answer.
    [ "$(compose logs --no-log-prefix web)" = "from the volume" ]
}
logs_name_the_service() { compose logs | grep -q '^web-1 .*from the volume'; }
an_inline_config_is_a_file_with_its_mode() {
    [ "$(inside web cat /www/index.html)" = "written in compose.yaml" ] && [ "$(inside web stat -c %a /www/index.html)" = 444 ]
}
exec_tells_the_exit_code_and_passes_stdin() {
    [ "$(echo typed | inside web cat)" = typed ]
    local code=0; inside web sh -c 'exit 7' || code=$?; [ $code = 7 ]
}
names_resolve_on_shared_networks_alone() {
    [ "$(inside outsider wget -q -O - http://web/)" = "written in compose.yaml" ]
    inside web nslookup store >/dev/null
    ! inside outsider nslookup store
}
cp_goes_both_ways() {
    echo copied > "$dir/in.txt"
    compose cp "$dir/in.txt" web:/tmp/in.txt
    [ "$(inside web cat /tmp/in.txt)" = copied ]
    rm -f "$dir/out.txt"
    compose cp web:/tmp/in.txt "$dir/out.txt"
    cmp "$dir/in.txt" "$dir/out.txt"
}
restart_starts_anew_and_keeps_files() {
    local before; before=$(started web)
    compose restart --timeout 1 web
    [ "$(started web)" != "$before" ] && [ "$(inside web cat /tmp/in.txt)" = copied ]
}
up_again_changes_nothing() {
    local before; before=$(started store)
    compose up --detach --wait
    [ "$(started store)" = "$before" ]
}
down_keeps_the_volume_for_the_next_up() {
    inside store sh -c 'echo kept > /data/kept'
    compose down --timeout 1
    [ -z "$(docker ps --all --quiet --filter label=com.docker.compose.project=compat)" ]
    [ -z "$(docker network ls --quiet --filter label=com.docker.compose.project=compat)" ]
    compose up --detach --wait
    [ "$(inside store cat /data/kept)" = kept ]
}
down_with_volumes_leaves_nothing() {
    compose down --timeout 1 --volumes
    [ -z "$(docker ps --all --quiet --filter label=com.docker.compose.project=compat)" ]
    [ -z "$(docker network ls --quiet --filter label=com.docker.compose.project=compat)" ]
    [ -z "$(docker volume ls --quiet --filter label=com.docker.compose.project=compat)" ]
}

# shellcheck source=tests/compat/project/daily.sh
source "$here/project/daily.sh"

for assertion in up_waits_until_everything_runs ps_shows_every_service_and_its_health \
    a_dependent_starts_when_what_it_needs_is_healthy logs_name_the_service an_inline_config_is_a_file_with_its_mode \
    exec_tells_the_exit_code_and_passes_stdin names_resolve_on_shared_networks_alone cp_goes_both_ways \
    restart_starts_anew_and_keeps_files up_again_changes_nothing down_keeps_the_volume_for_the_next_up \
    down_with_volumes_leaves_nothing $(grep -o '^daily_[a-z_]*' "$here/project/daily.sh"); do
    echo "== $assertion"
    # A shell of its own: in an `if` or with `||`, bash would go on after a failed line of a function.
    set +e
    (set -e; "$assertion")
    outcome=$?
    set -e
    if [ $outcome = 0 ]; then echo "pass compose::$assertion" >> "$results"; else echo "fail compose::$assertion" >> "$results"; fi
done
