import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Types;
import java.time.LocalDate;
import java.time.LocalTime;
import java.time.OffsetDateTime;
import java.util.Arrays;
import java.util.Properties;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.util.PGobject;

/** What pgjdbc does with prepared statements, batches, portals, copies, cancels and errors. */
public class Pgjdbc {
    static final String TABLE = System.getenv("DB_TABLE");
    static final String NAME = "Gr\u00fc\u00dfe, \"O'Hara\" \\ \u4e16\u754c \ud83c\udf88";

    public static void main(String[] args) throws Exception {
        try (Connection c = connect("prepareThreshold=-1")) { // binary, and named on the server, from the first run on
            typed(c);
            rows(c);
            error(c);
            transaction(c);
            portal(c);
            copy(c);
            listen(c);
        }
        try (Connection c = connect("")) {
            several(c);
            batch(c, 1000, 1050);
            brokenBatch(c);
            cancel(c);
            timeout(c);
        }
        try (Connection c = connect("reWriteBatchedInserts=true")) {
            batch(c, 1050, 1100);
        }
        try (Connection c = connect("preferQueryMode=simple")) {
            simple(c);
        }
        System.out.println("ok");
    }

    static Connection connect(String options) throws SQLException {
        String ca = System.getenv("DB_CA");
        String tls = ca == null || ca.isEmpty() ? "&sslmode=disable" : "&sslmode=verify-full&sslrootcert=" + ca;
        Properties who = new Properties();
        who.put("user", System.getenv("DB_USER"));
        who.put("password", System.getenv("DB_PASSWORD"));
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("DB_HOST") + ":" + System.getenv("DB_PORT") + "/"
            + System.getenv("DB_NAME") + "?" + options + tls, who);
    }

    static void check(boolean good, String what) {
        if (!good) {
            throw new AssertionError(what);
        }
    }

    static void typed(Connection c) throws SQLException {
        byte[] data = {0, (byte) 0xff, 0x27, 0x22, 0x5c, 0x0a};
        OffsetDateTime moment = OffsetDateTime.parse("2026-02-28T23:59:58.123456Z");
        PGobject doc = new PGobject();
        doc.setType("jsonb");
        doc.setValue("{\"a\": [1, \"\u00fc\"]}");
        String[] tags = {"plain", "two words", "quo\"te", null, "\u00fc,"};
        UUID mark = UUID.fromString("6f1ed002-ab59-4f2c-9a2b-3d3d1b1b7c01");
        try (PreparedStatement p = c.prepareStatement("INSERT INTO " + TABLE
            + " (id, big, price, ratio, flag, name, data, nothing, moment, day, clock, mark, doc, tags, numbers)"
            + " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")) {
            p.setInt(1, -42);
            p.setLong(2, Long.MAX_VALUE);
            p.setBigDecimal(3, new BigDecimal("12345678901234.567890"));
            p.setDouble(4, 0.1);
            p.setBoolean(5, true);
            p.setString(6, NAME);
            p.setBytes(7, data);
            p.setNull(8, Types.VARCHAR);
            p.setObject(9, moment);
            p.setObject(10, LocalDate.of(2026, 2, 28));
            p.setObject(11, LocalTime.of(12, 34, 56));
            p.setObject(12, mark);
            p.setObject(13, doc);
            p.setArray(14, c.createArrayOf("text", tags));
            p.setArray(15, c.createArrayOf("int4", new Integer[] {1, -2, 3}));
            check(p.executeUpdate() == 1, "one row");
        }
        try (PreparedStatement p = c.prepareStatement("SELECT * FROM " + TABLE + " WHERE id = ?")) {
            for (int i = 0; i < 3; i++) {
                p.setInt(1, -42);
                ResultSet r = p.executeQuery();
                check(r.next(), "it is there");
                check(r.getLong("big") == Long.MAX_VALUE, "big is " + r.getLong("big"));
                check(r.getBigDecimal("price").equals(new BigDecimal("12345678901234.567890")), "price is " + r.getBigDecimal("price"));
                check(r.getDouble("ratio") == 0.1 && r.getBoolean("flag"), "ratio is " + r.getDouble("ratio"));
                check(r.getString("name").equals(NAME), "name is " + r.getString("name"));
                check(Arrays.equals(r.getBytes("data"), data), "data is " + Arrays.toString(r.getBytes("data")));
                check(r.getString("nothing") == null, "nothing is " + r.getString("nothing"));
                check(r.getObject("moment", OffsetDateTime.class).isEqual(moment), "moment is " + r.getString("moment"));
                check(r.getObject("day", LocalDate.class).toString().equals("2026-02-28"), "day is " + r.getString("day"));
                check(r.getObject("clock", LocalTime.class).toString().equals("12:34:56"), "clock is " + r.getString("clock"));
                check(r.getObject("mark").equals(mark), "mark is " + r.getObject("mark"));
                check(Arrays.equals((String[]) r.getArray("tags").getArray(), tags), "tags are " + r.getString("tags"));
                check(Arrays.equals((Integer[]) r.getArray("numbers").getArray(), new Integer[] {1, -2, 3}), "numbers are " + r.getString("numbers"));
            }
        }
    }

    static void rows(Connection c) throws SQLException {
        try (Statement s = c.createStatement()) {
            ResultSet r = s.executeQuery("SELECT n FROM generate_series(1, 1000) n");
            long sum = 0;
            while (r.next()) {
                sum += r.getLong(1);
            }
            check(sum == 500500, "the sum is " + sum);
            r = s.executeQuery("SELECT repeat('x', 1000) FROM generate_series(1, 5000)");
            long length = 0;
            while (r.next()) {
                length += r.getString(1).length();
            }
            check(length == 5000000, "it has " + length + " characters");
        }
    }

    static void error(Connection c) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.executeQuery("SELECT * FROM there_is_no_such_table");
            check(false, "no error");
        } catch (SQLException e) {
            check(e.getSQLState().equals("42P01"), "the error is " + e.getSQLState());
        }
    }

    static void transaction(Connection c) throws SQLException {
        c.setAutoCommit(false);
        try (Statement s = c.createStatement()) {
            s.executeUpdate("INSERT INTO " + TABLE + " (id, name) VALUES (1, 'rolled back')");
            c.rollback();
            s.executeUpdate("INSERT INTO " + TABLE + " (id, name) VALUES (2, 'committed')");
            c.commit();
        }
        c.setAutoCommit(true);
    }

    /** A result that is fetched piece by piece: one portal, many executions. */
    static void portal(Connection c) throws SQLException {
        c.setAutoCommit(false);
        try (PreparedStatement p = c.prepareStatement("SELECT m FROM generate_series(1, ?::int) m")) {
            p.setFetchSize(300);
            p.setInt(1, 2000);
            ResultSet r = p.executeQuery();
            long sum = 0;
            while (r.next()) {
                sum += r.getLong(1);
            }
            check(sum == 2001000, "the sum of a portal is " + sum);
        }
        c.commit();
        c.setAutoCommit(true);
    }

    static void copy(Connection c) throws Exception {
        StringBuilder text = new StringBuilder();
        for (int id = 3000; id < 4000; id++) {
            text.append(id).append("\tcopied ").append(id).append('\n');
        }
        PGConnection pg = c.unwrap(PGConnection.class);
        check(pg.getCopyAPI().copyIn("COPY " + TABLE + " (id, name) FROM STDIN", new StringReader(text.toString())) == 1000, "a thousand rows");
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        pg.getCopyAPI().copyOut("COPY (SELECT id, name FROM " + TABLE + " WHERE id BETWEEN 3000 AND 3999 ORDER BY id) TO STDOUT", out);
        check(out.toString(StandardCharsets.UTF_8).equals(text.toString()), "what was copied out");
    }

    static void several(Connection c) throws SQLException {
        try (Statement s = c.createStatement()) {
            check(s.execute("SELECT 1; SELECT 3, 'three' UNION ALL SELECT 4, 'four'"), "a result set first");
            check(s.getMoreResults(), "then another");
            ResultSet r = s.getResultSet();
            check(r.next() && r.next() && r.getInt(1) == 4 && r.getString(2).equals("four"), "the last row");
        }
    }

    static void listen(Connection c) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.execute("LISTEN to_the_driver");
            s.execute("NOTIFY to_the_driver, 'gr\u00fc\u00dfe'");
        }
        PGNotification[] notes = c.unwrap(PGConnection.class).getNotifications(20000);
        check(notes != null && notes.length == 1 && notes[0].getParameter().equals("gr\u00fc\u00dfe"), "a notification");
    }

    static void batch(Connection c, int from, int to) throws SQLException {
        try (PreparedStatement p = c.prepareStatement("INSERT INTO " + TABLE + " (id, name) VALUES (?, ?)")) {
            for (int i = from; i < to; i++) {
                p.setInt(1, i);
                p.setString(2, "batch " + i);
                p.addBatch();
            }
            check(p.executeBatch().length == to - from, "a result for each");
        }
    }

    static void brokenBatch(Connection c) throws SQLException {
        try (PreparedStatement p = c.prepareStatement("INSERT INTO " + TABLE + " (id, day) VALUES (?, ?::text::date)")) {
            for (String day : new String[] {"2026-01-01", "a bad day", "2026-01-03"}) {
                p.setInt(1, 2000);
                p.setString(2, day);
                p.addBatch();
            }
            p.executeBatch();
            check(false, "no error");
        } catch (BatchUpdateException e) {
            check(e.getSQLState().equals("22007"), "the error is " + e.getSQLState() + " " + e.getMessage());
        }
    }

    /** Another thread cancels what it sees at work. */
    static void cancel(Connection c) throws Exception {
        try (Statement s = c.createStatement(); Connection watcher = connect(""); Statement w = watcher.createStatement()) {
            Thread other = new Thread(() -> {
                try {
                    while (!w.executeQuery("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = current_user").next()) {
                        Thread.onSpinWait();
                    }
                    s.cancel();
                } catch (SQLException e) {
                    throw new IllegalStateException(e);
                }
            });
            other.start();
            try {
                s.execute("SELECT pg_sleep(60)");
                check(false, "it slept");
            } catch (SQLException e) {
                check(e.getSQLState().equals("57014"), "a canceled statement ends with " + e.getSQLState());
            }
            other.join();
        }
    }

    /** The driver's own timer sends a cancel request. */
    static void timeout(Connection c) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            s.execute("SELECT pg_sleep(60)");
            check(false, "it slept");
        } catch (SQLException e) {
            check(e.getSQLState().equals("57014"), "a statement that timed out ends with " + e.getSQLState());
        }
        try (Statement s = c.createStatement()) {
            ResultSet r = s.executeQuery("SELECT 5");
            check(r.next() && r.getInt(1) == 5, "it goes on");
        }
    }

    static void simple(Connection c) throws SQLException {
        try (PreparedStatement p = c.prepareStatement("SELECT ?::int + ?, ?")) {
            p.setInt(1, 40);
            p.setInt(2, 2);
            p.setString(3, NAME);
            ResultSet r = p.executeQuery();
            check(r.next() && r.getInt(1) == 42 && r.getString(2).equals(NAME), "the sum");
        }
    }
}
