package mysql

// layout says what is known of a command that may pass: how many bytes its packet has; at least so many,
// if that is negative; 0: it depends, but it is short.
func layout(command byte) (size int, known bool) {
	switch command {
	case comQuery, comStmtPrepare:
		return -1, true
	case comQuit, comInitDB, comFieldList:
		return 0, true
	case comStatistics, comProcessInfo, comDebug, comPing, comResetConnection:
		return 1, true
	case comRefresh:
		return 2, true
	case comSetOption:
		return 3, true
	case comStmtClose, comStmtReset, comProcessKill:
		return 5, true
	case comStmtLongData, comStmtBulkExecute:
		return -7, true
	case comStmtFetch:
		return 9, true
	case comStmtExecute:
		return -10, true
	}
	return 0, false
}

// commandNames are the commands' names on record, by their numbers.
var commandNames = [...]string{
	"sleep",
	"quit",
	"init_db",
	"query",
	"field_list",
	"create_db",
	"drop_db",
	"refresh",
	"shutdown",
	"statistics",
	"process_info",
	"connect",
	"process_kill",
	"debug",
	"ping",
	"time",
	"delayed_insert",
	"change_user",
	"binlog_dump",
	"table_dump",
	"connect_out",
	"register_slave",
	"stmt_prepare",
	"stmt_execute",
	"stmt_send_long_data",
	"stmt_close",
	"stmt_reset",
	"set_option",
	"stmt_fetch",
	"daemon",
	"binlog_dump_gtid",
	"reset_connection",
	"clone",
	"subscribe_group_replication_stream",
}

func commandName(command byte) string {
	switch {
	case int(command) < len(commandNames):
		return commandNames[command]
	case command == comStmtBulkExecute:
		return "stmt_bulk_execute"
	case command == comMulti:
		return "multi"
	}
	return "unknown"
}

// answered says whether the server answers a command at all.
func answered(command byte) bool {
	switch command {
	case comStmtLongData, comStmtClose, comQuit:
		return false
	}
	return true
}
