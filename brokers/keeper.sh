# Runs one broker for as long as anybody uses it. Arguments: the seconds to linger, a process to outlive (0: none), and the
# broker's command. The working directory is the instance's own. Descriptor 3 is the reading end of the fifo "users": every user
# holds its writing end open, so that end of file means that the last one has closed it or died, however it died.
# Descriptor 4 stays open for as long as this script runs: whoever reads its other end learns that everything is over.
{
	linger=$1 until=$2 dir=$PWD
	shift 2
	"$@" </dev/null >>broker.log 2>&1 3<&- 4>&- &
	broker=$!
	echo "$broker" >pid
	if [ "$until" != 0 ]; then
		(while kill -0 "$until" 2>/dev/null; do sleep 1; done) 3<&- 4>&- >users &
	fi
	# A user opens the fifo, creates "joined", then looks whether "ready" is there; here "ready" goes first and the fifo is read
	# again afterwards. So whoever saw "ready" is waited for, and whoever did not starts a broker of its own. ("joined" only makes
	# the broker stay for those who come while it lingers. One that comes just before it is removed is waited for all the same, but
	# those after it start another broker.)
	(
		while :; do
			cat <&3 >/dev/null
			rm -f joined
			sleep "$linger"
			[ -e joined ] || break
		done
		rm -f ready
		cat <&3 >/dev/null
		[ -e exited ] || kill -KILL "$broker"
		for pid in $(cat helpers 2>/dev/null); do
			kill -KILL "$pid"
		done
	) 4>&- &
	watcher=$!
	exec 3<&-
	wait "$broker"
	echo $? >exited
	wait "$watcher"
	# An owner that will start this instance again leaves "keep".
	[ -e keep ] || rm -rf "$dir"
	kill -KILL 0 # whatever else the broker left in this process group, and this shell
} </dev/null >/dev/null 2>&1 &
