package intended

import "strings"

// keyword reports whether a word means the same in whatever case. Where names of tables may differ in their case
// alone, every other word is compared as it is; a word that is missing here makes two statements differ, no more.
func keyword(word string) bool { return strings.Contains(keywords, " "+word+" ") }

// These are reserved: no table can have one of them as its name without quotes.
const keywords = " add all alter analyze and as asc before between both by call cascade case change character check " +
	"collate column condition constraint convert create cross current_date current_time current_timestamp current_user " +
	"cursor database databases declare default delayed delete desc describe distinct distinctrow div drop dual each else elseif " +
	"enclosed escaped except exists exit explain false fetch for force foreign from fulltext grant group having high_priority if ignore " +
	"in index infile inner inout insert intersect interval into is iterate join key keys kill leading leave left like limit lines load " +
	"localtime localtimestamp lock loop low_priority match mod modifies natural not null on optimize option optionally or " +
	"order out outer outfile over partition primary procedure purge range read reads recursive references regexp release rename repeat " +
	"replace require resignal restrict return revoke right rlike rows schema schemas select separator set show signal " +
	"sql_big_result sql_calc_found_rows sql_small_result starting straight_join table terminated then to trailing " +
	"trigger true undo union unique unlock update usage use using values when where while window with write xor "
