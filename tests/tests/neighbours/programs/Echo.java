import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.security.MessageDigest;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Iterator;
import java.util.Random;

/** serve ADDRESS PORT: a selector and non-blocking channels. ask ADDRESS PORT: a blocking socket and a thread. */
public final class Echo {
    private static final int MESSAGES = 2_000;
    private static final int BULK = 5_000_000;

    public static void main(String[] words) throws Exception {
        InetSocketAddress address = new InetSocketAddress(words[1], Integer.parseInt(words[2]));
        if (words[0].equals("serve")) {
            serve(address);
        } else {
            ask(address);
        }
    }

    private static void serve(InetSocketAddress address) throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel listener = ServerSocketChannel.open().bind(address);
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (true) {
            selector.select();
            Iterator<SelectionKey> keys = selector.selectedKeys().iterator();
            while (keys.hasNext()) {
                SelectionKey key = keys.next();
                keys.remove();
                if (key.isAcceptable()) {
                    SocketChannel channel = listener.accept();
                    channel.configureBlocking(false);
                    channel.register(selector, SelectionKey.OP_READ, ByteBuffer.allocateDirect(1 << 16));
                } else {
                    echo(key);
                }
            }
        }
    }

    /** One buffer: reads when it is empty, writes until it is again. */
    private static void echo(SelectionKey key) throws Exception {
        SocketChannel channel = (SocketChannel) key.channel();
        ByteBuffer buffer = (ByteBuffer) key.attachment();
        if (key.isReadable()) {
            if (channel.read(buffer) < 0) {
                channel.close();
                return;
            }
            buffer.flip();
        }
        channel.write(buffer);
        if (buffer.hasRemaining()) {
            key.interestOps(SelectionKey.OP_WRITE);
        } else {
            buffer.clear();
            key.interestOps(SelectionKey.OP_READ);
        }
    }

    private static void ask(InetSocketAddress address) throws Exception {
        Random random = new Random(4);
        try (Socket socket = new Socket()) {
            socket.connect(address);
            socket.setTcpNoDelay(true);
            socket.setSoTimeout(20_000);
            InputStream in = socket.getInputStream();
            OutputStream out = socket.getOutputStream();
            for (int number = 0; number < MESSAGES; number++) {
                byte[] message = new byte[1 + number % 300];
                random.nextBytes(message);
                out.write(message);
                if (!Arrays.equals(in.readNBytes(message.length), message)) {
                    throw new AssertionError("message " + number);
                }
            }
            System.out.println("messages " + MESSAGES);
            bulk(socket, random);
        }
    }

    /** Both directions at once; then the client ends its own, and the server does so too. */
    private static void bulk(Socket socket, Random random) throws Exception {
        byte[] data = new byte[BULK];
        random.nextBytes(data);
        Thread writer = new Thread(() -> {
            try {
                socket.getOutputStream().write(data);
                socket.shutdownOutput();
            } catch (Exception error) {
                error.printStackTrace();
            }
        });
        writer.start();
        byte[] back = socket.getInputStream().readAllBytes();
        writer.join();
        String digest = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(back));
        System.out.println("bulk " + back.length + " " + digest + " " + Arrays.equals(back, data));
    }
}
