import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Time;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.Arrays;
import java.util.Properties;

/** What MariaDB Connector/J does with prepared statements on the server, batches, cursors and errors. */
public class ConnectorJ {
    static final String TABLE = System.getenv("DB_TABLE");

    public static void main(String[] args) throws Exception {
        try (Connection c = connect("useServerPrepStmts=true")) {
            typed(c);
            rows(c);
            error(c);
            transaction(c);
            big(c);
        }
        try (Connection c = connect("useServerPrepStmts=true&useBulkStmts=true")) {
            batch(c, "bulk");
            brokenBatch(c);
        }
        try (Connection c = connect("useBatchMultiSend=true&useBulkStmts=false&useServerPrepStmts=true")) {
            batch(c, "pipelined");
        }
        try (Connection c = connect("rewriteBatchedStatements=true")) {
            batch(c, "rewritten");
        }
        try (Connection c = connect("allowMultiQueries=true")) {
            several(c);
        }
        System.out.println("ok");
    }

    static Connection connect(String options) throws SQLException {
        String ca = System.getenv("DB_CA");
        String tls = ca == null || ca.isEmpty() ? "&useSsl=false" : "&useSsl=true&serverSslCert=" + ca;
        Properties who = new Properties();
        who.put("user", System.getenv("DB_USER"));
        who.put("password", System.getenv("DB_PASSWORD"));
        return DriverManager.getConnection("jdbc:mariadb://" + System.getenv("DB_HOST") + ":" + System.getenv("DB_PORT") + "/"
            + System.getenv("DB_NAME") + "?serverTimezone=UTC&useFractionalSeconds=true&allowPublicKeyRetrieval=true&" + options + tls, who);
    }

    static void check(boolean good, String what) {
        if (!good) {
            throw new AssertionError(what);
        }
    }

    static void typed(Connection c) throws SQLException {
        byte[] blob = {0, (byte) 0xff, 0x27, 0x22, 0x5c, 0x0a};
        Timestamp moment = Timestamp.valueOf("2026-02-28 23:59:58.123456");
        try (PreparedStatement p = c.prepareStatement("INSERT INTO " + TABLE
            + " (id, big, price, ratio, name, data, nothing, moment, day, clock) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")) {
            p.setInt(1, -42);
            p.setObject(2, new BigInteger("18446744073709551615"));
            p.setBigDecimal(3, new BigDecimal("12345678901234.567890"));
            p.setDouble(4, 0.1);
            p.setString(5, "Gr\u00fc\u00dfe, \u4e16\u754c \ud83c\udf88");
            p.setBytes(6, blob);
            p.setNull(7, Types.VARCHAR);
            p.setTimestamp(8, moment);
            p.setDate(9, Date.valueOf("2026-02-28"));
            p.setTime(10, Time.valueOf("12:34:56"));
            check(p.executeUpdate() == 1, "one row");
        }
        try (PreparedStatement p = c.prepareStatement("SELECT * FROM " + TABLE + " WHERE id = ?")) {
            for (int i = 0; i < 3; i++) { // the types are sent with the first of them only
                p.setInt(1, -42);
                ResultSet r = p.executeQuery();
                check(r.next(), "it is there");
                check(r.getObject("big").toString().equals("18446744073709551615"), "big is " + r.getObject("big"));
                check(r.getBigDecimal("price").equals(new BigDecimal("12345678901234.567890")), "price is " + r.getBigDecimal("price"));
                check(r.getDouble("ratio") == 0.1, "ratio is " + r.getDouble("ratio"));
                check(r.getString("name").equals("Gr\u00fc\u00dfe, \u4e16\u754c \ud83c\udf88"), "name is " + r.getString("name"));
                check(Arrays.equals(r.getBytes("data"), blob), "data is " + Arrays.toString(r.getBytes("data")));
                check(r.getString("nothing") == null, "nothing is " + r.getString("nothing"));
                check(r.getTimestamp("moment").equals(moment), "moment is " + r.getTimestamp("moment"));
                check(r.getDate("day").toString().equals("2026-02-28"), "day is " + r.getDate("day"));
                check(r.getTime("clock").toString().equals("12:34:56"), "clock is " + r.getTime("clock"));
            }
        }
    }

    static void rows(Connection c) throws SQLException {
        try (Statement s = c.createStatement()) {
            ResultSet r = s.executeQuery("SELECT seq FROM seq_1_to_1000");
            long sum = 0;
            while (r.next()) {
                sum += r.getLong(1);
            }
            check(sum == 500500, "the sum is " + sum);
        }
    }

    static void error(Connection c) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.executeQuery("SELECT * FROM there_is_no_such_table");
            check(false, "no error");
        } catch (SQLException e) {
            check(e.getErrorCode() == 1146 && e.getSQLState().equals("42S02"), "the error is " + e.getErrorCode() + " " + e.getSQLState());
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

    static void big(Connection c) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.setFetchSize(100);
            ResultSet r = s.executeQuery("SELECT REPEAT('x', 1000) FROM seq_1_to_5000");
            long bytes = 0;
            while (r.next()) {
                bytes += r.getString(1).length();
            }
            check(bytes == 5000000, "it has " + bytes + " bytes");
        }
    }

    static void batch(Connection c, String how) throws SQLException {
        try (PreparedStatement p = c.prepareStatement("INSERT INTO " + TABLE + " (id, name) VALUES (?, ?)")) {
            for (int i = 0; i < 100; i++) {
                p.setInt(1, 1000 + i);
                p.setString(2, i == 50 ? null : how + " " + i);
                p.addBatch();
            }
            check(p.executeBatch().length == 100, "a hundred results");
        }
    }

    static void brokenBatch(Connection c) throws SQLException {
        try (PreparedStatement p = c.prepareStatement("INSERT INTO " + TABLE + " (id, day) VALUES (?, ?)")) {
            for (String day : new String[] {"2026-01-01", "a bad day", "2026-01-03"}) {
                p.setInt(1, 2000);
                p.setString(2, day);
                p.addBatch();
            }
            p.executeBatch();
            check(false, "no error");
        } catch (BatchUpdateException e) {
            check(e.getErrorCode() == 1292, "the error is " + e.getErrorCode() + " " + e.getMessage());
        }
    }

    static void several(Connection c) throws SQLException {
        try (Statement s = c.createStatement()) {
            check(s.execute("SELECT 1; DO 2; SELECT 3, 'three' UNION SELECT 4, 'four'"), "a result set first");
            check(!s.getMoreResults(), "then none");
            check(s.getMoreResults(), "then another");
            ResultSet r = s.getResultSet();
            check(r.next() && r.next() && r.getInt(1) == 4 && r.getString(2).equals("four"), "the last row");
        }
    }
}
