# Assertions on daily.yaml, in order; read by ../compose.sh.
export COMPAT_SECRET=hidden COMPAT_IMAGE="$WHARFAGE_REGISTRY/$COMPAT_NAMESPACE/daily:v1"
daily() { timeout 60 docker compose --ansi never --progress plain --file "$here/project/daily.yaml" "$@"; }
of_daily() { docker "$1" ls "${@:2}" --quiet --filter label=com.docker.compose.project=daily; }
app() { daily ps --quiet app; }

daily_a_job_is_done_before_what_needs_it() {
    daily up --detach
    [ "$(daily ps --all --format '{{.Service}} {{.State}} {{.ExitCode}}' | sort)" = "$(printf '%s\n' 'app running 0' 'migrate exited 0')" ]
    [ "$(daily logs --no-log-prefix app | head -n 1)" = "state: migrated" ]
}
daily_what_waits_for_a_job_that_fails_is_not_started() {
    local told; ! told=$(daily --profile broken up --detach hopeless 2>&1)
    grep -q "service \"broken\" didn't complete successfully: exit 3" <<<"$told"
    [ "$(daily --profile broken ps --all --format '{{.State}}' hopeless)" = created ]
    daily --profile broken rm --force --stop broken hopeless
}
daily_run_is_a_container_of_one_command() {
    [ "$(daily run --rm --no-TTY --env GREETING=again app sh -c 'echo $GREETING; cat /run/secrets/token /data/state')" = "$(printf '%s\n' again hiddenmigrated)" ]
    [ "$(echo typed | daily run --rm --no-TTY --no-deps app cat)" = typed ]
    local code=0; daily run --rm --no-TTY --no-deps app sh -c 'exit 9' || code=$?; [ $code = 9 ]
    [ -z "$(of_daily container --all --filter label=com.docker.compose.oneoff=True)" ]
}
daily_logs_are_followed() {
    # One line that is there, and others that come.
    [ "$(daily logs --follow --no-log-prefix --tail 1 app | grep --max-count 3 --count tick || true)" = 3 ]
    local code=0; timeout 3 docker compose --file "$here/project/daily.yaml" logs --follow app >/dev/null || code=$?; [ $code = 124 ]
}
daily_ps_is_json_for_programs() {
    daily ps --format json app | jq --exit-status '.Service == "app" and .State == "running" and .Project == "daily" and .Publishers[0].TargetPort == 80'
    [ "$(daily ps --all --status exited --services)" = migrate ]
}
daily_top_port_images_and_stats_tell_of_a_service() {
    daily top app | grep -q 'sleep 1'
    daily port app 80 | grep -q '^0\.0\.0\.0:[0-9]*$'
    daily images app | grep -q busybox
    daily stats --no-stream --format json app | jq --exit-status '.Name == "daily-app-1"'
    docker compose ls --format json | jq --exit-status '.[] | select(.Name == "daily") | .Status | startswith("running")'
}
daily_pause_and_unpause() {
    daily pause app
    [ "$(daily ps --format '{{.State}}' app)" = paused ]
    daily unpause app
    [ "$(daily ps --format '{{.State}}' app)" = running ]
}
daily_stop_is_gentle_and_kill_is_not() {
    daily stop app
    [ "$(daily logs --no-log-prefix --tail 1 app)" = bye ]
    [ "$(daily ps --all --format '{{.State}} {{.ExitCode}}' app)" = "exited 0" ]
    daily start app
    [ "$(daily ps --format '{{.State}}' app)" = running ]
    daily kill app
    [ "$(daily ps --all --format '{{.State}} {{.ExitCode}}' app)" = "exited 137" ]
    daily start app
    daily kill --signal SIGTERM app
    daily wait app || true
    [ "$(daily ps --all --format '{{.ExitCode}}' app)" = 0 ]
    daily up --detach app
}
daily_restart_goes_on_with_the_same_container() {
    local before; before=$(app)
    daily restart --timeout 1 app
    [ "$(app)" = "$before" ] && [ "$(daily ps --format '{{.State}}' app)" = running ]
}
daily_config_shows_what_the_document_means() {
    [ "$(daily config --services | sort | tr '\n' ' ')" = "app migrate " ]
    [ "$(GREETING=salut daily config --format json | jq -r .services.app.environment.GREETING)" = salut ]
    [ "$(daily config --profiles | sort | tr '\n' ' ')" = "broken images tools " ]
}
daily_a_changed_document_makes_a_new_container() {
    local before; before=$(app)
    GREETING=salut daily up --detach app
    [ "$(app)" != "$before" ]
    [ "$(daily exec -T app sh -c 'echo $GREETING')" = salut ]
    [ "$(of_daily container --all --filter label=com.docker.compose.service=app | wc -l)" = 1 ]
    daily up --detach --force-recreate app
    [ "$(daily exec -T app sh -c 'echo $GREETING')" = hello ]
}
daily_a_profile_is_there_when_it_is_asked_for() {
    [ -z "$(daily ps --all --quiet debug 2>/dev/null || true)" ]
    daily --profile tools up --detach --wait debug
    [ "$(daily --profile tools ps --format '{{.State}}' debug)" = running ]
    daily --profile tools up --detach --scale debug=3 --no-recreate debug
    [ "$(daily --profile tools ps --quiet debug | wc -l)" = 3 ]
    daily --profile tools up --detach --scale debug=1 debug
    [ "$(daily --profile tools ps --all --quiet debug | wc -l)" = 1 ]
}
daily_cp_and_exec_reach_a_service() {
    echo copied > "$dir/daily.txt"
    daily cp "$dir/daily.txt" app:/tmp/
    [ "$(daily exec -T --user 1000 --workdir /tmp --env A=b app sh -c 'cat daily.txt; id -u; echo $A')" = "$(printf '%s\n' copied 1000 b)" ]
    daily exec --detach app touch /tmp/detached
    for _ in $(seq 50); do daily exec -T app test -e /tmp/detached && return; sleep 0.1; done
    return 1
}
daily_images_are_pushed_and_pulled() {
    docker tag busybox "$COMPAT_IMAGE"
    daily --profile images push pushed
    docker rmi "$COMPAT_IMAGE"
    daily --profile images pull pushed
    docker image inspect "$COMPAT_IMAGE" >/dev/null
    [ "$(daily --profile images run --rm --no-TTY pushed)" = "from the registry" ]
}
daily_create_and_rm() {
    daily --profile tools rm --force --stop debug
    daily --profile tools create debug
    [ "$(daily --profile tools ps --all --format '{{.State}}' debug)" = created ]
    daily --profile tools start debug
    daily --profile tools rm --force --stop --volumes debug
    [ -z "$(daily --profile tools ps --all --quiet debug)" ]
}
daily_events_are_told() {
    timeout 60 docker compose --file "$here/project/daily.yaml" events --json > "$dir/events.txt" & local events=$!
    for _ in $(seq 50); do
        daily restart --timeout 0 app
        grep -q '"action":"start"' "$dir/events.txt" && break
        sleep 0.2
    done
    kill $events; wait $events || true
    jq --exit-status --slurp 'any(.[]; .service == "app" and .action == "start")' "$dir/events.txt"
}
daily_down_takes_orphans_along() {
    printf '%s\n' 'name: daily' 'services: {stray: {image: busybox, command: sleep 3600, stop_signal: SIGKILL}}' > "$dir/stray.yaml"
    timeout 60 docker compose --file "$dir/stray.yaml" up --detach
    daily --profile tools up --detach debug
    daily --profile tools down --timeout 1 --volumes
    [ "$(of_daily container --filter label=com.docker.compose.service=stray | wc -l)" = 1 ]
    daily --profile tools down --timeout 1 --volumes --remove-orphans
    [ -z "$(of_daily container --all)$(of_daily network)$(of_daily volume)" ]
}
